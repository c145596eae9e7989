"""Cheap passes: the same numbers from fewer nodes, and what they must leave alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from anyport.graph.tidying import tidy
from anyport.runtime import open_session

if TYPE_CHECKING:
    from pathlib import Path

X = np.arange(24, dtype=np.float32).reshape(2, 12)


def split_graph(
    size: int, places: tuple[int, ...], *, keepdims: int = 1, width: int | str = 12
) -> onnx.ModelProto:
    """Return a graph that splits x into pieces of a size, and joins some of them."""
    constants = [h.make_tensor("size", T.INT64, [], [size])]
    constants += [h.make_tensor(f"at{i}", T.INT64, [], [place]) for i, place in enumerate(places)]
    nodes = [h.make_node("Constant", [], [c.name], value=c) for c in constants]
    nodes.append(h.make_node("SplitToSequence", ["x", "size"], ["pieces"], axis=-1, keepdims=keepdims))
    nodes += [h.make_node("SequenceAt", ["pieces", f"at{i}"], [f"p{i}"]) for i in range(len(places))]
    nodes.append(h.make_node("Concat", [f"p{i}" for i in range(len(places))], ["y"], axis=-1))
    inputs = [h.make_tensor_value_info("x", T.FLOAT, ["batch", width])]
    outputs = [h.make_tensor_value_info("y", T.FLOAT, None)]
    graph = h.make_graph(nodes, "g", inputs, outputs)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=10)


def answer(model: onnx.ModelProto, path: Path) -> np.ndarray:
    onnx.save(model, path)
    return open_session(path).run({"x": X})["y"]


@pytest.mark.parametrize(
    ("size", "places", "is_split"),
    [(4, (0, 2), True), (4, (-1, 1), True), (6, (1,), True), (5, (0, 2), False), (12, (0,), True)],
)
def test_sequences_of_equal_pieces_become_a_split(
    tmp_path: Path, size: int, places: tuple[int, ...], is_split: bool
) -> None:
    proto = split_graph(size, places)
    model = ir.serde.deserialize_model(proto)
    tidy(model)
    operators = [node.op_type for node in model.graph]
    assert ("Split" in operators) is is_split
    assert ("SequenceAt" in operators) is not is_split
    made = ir.serde.serialize_model(model)
    assert np.array_equal(answer(made, tmp_path / "a.onnx"), answer(proto, tmp_path / "b.onnx"))


def test_a_split_of_unknown_size_stays(tmp_path: Path) -> None:
    proto = split_graph(4, (0, 2), width="width")
    model = ir.serde.deserialize_model(proto)
    tidy(model)
    assert "SplitToSequence" in [node.op_type for node in model.graph]
    made = ir.serde.serialize_model(model)
    assert np.array_equal(answer(made, tmp_path / "a.onnx"), answer(proto, tmp_path / "b.onnx"))


def test_nothing_is_computed_twice() -> None:
    nodes = [h.make_node("Relu", ["x"], [f"r{i}"]) for i in range(3)]
    nodes += [h.make_node("Sum", ["r0", "r1", "r2"], ["y"]), h.make_node("Neg", ["x"], ["unread"])]
    inputs = [h.make_tensor_value_info("x", T.FLOAT, [2])]
    outputs = [h.make_tensor_value_info("y", T.FLOAT, [2])]
    graph = h.make_graph(nodes, "g", inputs, outputs)
    model = ir.serde.deserialize_model(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)]))
    tidy(model)
    assert [node.op_type for node in model.graph] == ["Relu", "Sum"]
