"""What is read of a graph without the package onnx is what onnx itself reads."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from anyport.bundle import open_bundle
from anyport.runtime.graphfile import DTYPES, TensorFacts, ValueFacts, read_graph
from tests.house import tree
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path


def saved(path: Path, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> Path:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), str(path))
    return path


def test_nodes_names_and_axes(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="relu", domain="com.microsoft")
    found = read_graph(saved(tmp_path / "m.onnx", [node], []))
    [read] = found.graph.nodes
    assert (read.name, read.operator, read.domain) == ("relu", "Relu", "com.microsoft")
    assert (read.inputs, read.outputs) == (("x",), ("y",))
    assert found.opsets == {"": 20, "com.microsoft": 1}
    assert found.graph.inputs == (ValueFacts("x", "float32", ("batch", 3, None)),)
    assert found.graph.outputs == (ValueFacts("y", "float32", ()),)


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_weights_by_type_and_size(tmp_path: Path, place: str) -> None:
    beside = "w.bin" if place == "outside" else None
    found = read_graph(networks.affine(tmp_path / "a.onnx", beside=beside))
    assert found.graph.initializers == (
        TensorFacts("two", "float32", (3,), 12),
        TensorFacts("one", "float32", (3,), 12),
    )


def test_one_number_is_kept_however_it_is_written(tmp_path: Path) -> None:
    tensors = [
        numpy_helper.from_array(np.array(True), "raw"),
        helper.make_tensor("typed", TensorProto.BOOL, [], [True]),
        helper.make_tensor("long", TensorProto.INT64, [1], [-2]),
        numpy_helper.from_array(np.array([1, 2]), "two"),
        numpy_helper.from_array(np.array(1.0, np.float32), "float"),
        numpy_helper.from_array(np.array([], np.int8), "none"),
    ]
    read = read_graph(saved(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], tensors))
    values = {one.name: one.value for one in read.weights()}
    assert values == {"raw": 1, "typed": 1, "long": -2, "two": None, "float": None, "none": None}


def test_branches_and_constants_are_entered(tmp_path: Path) -> None:
    true = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("", TensorProto.BOOL, [], [1]))

    def branch(operator: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{operator}_out", TensorProto.FLOAT, None)
        return helper.make_graph(
            [helper.make_node(operator, ["x"], [f"{operator}_out"])], operator, [], [out]
        )

    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch("Relu"), else_branch=branch("Neg"))
    found = read_graph(saved(tmp_path / "m.onnx", [true, node], []))
    assert Counter(one.operator for one in found.all_nodes()) == Counter(["Constant", "If", "Relu", "Neg"])
    assert found.graph.nodes[0].constant == TensorFacts("", "bool", (), 1, 1)
    assert [one.value for one in found.weights()] == [1]


def test_attributes_that_are_whole_numbers(tmp_path: Path) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], axis=-1)
    assert read_graph(saved(tmp_path / "m.onnx", [node], [])).graph.nodes[0].integers == {"axis": -1}


def test_functions_are_read(tmp_path: Path) -> None:
    inner = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 20)],
    )
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, functions=[inner], opset_imports=opsets), str(tmp_path / "m.onnx"))
    assert [one.operator for one in read_graph(tmp_path / "m.onnx").all_nodes()] == ["Twice", "Add"]


def test_the_types_are_those_of_onnx() -> None:
    for number, (name, _) in DTYPES.items():
        ours = {"float32": "FLOAT", "float64": "DOUBLE"}.get(name, name.upper())
        assert TensorProto.DataType.Name(number) == ours  # type: ignore[arg-type]


def test_a_real_graph_is_read_as_onnx_reads_it() -> None:
    with open_bundle(tree.PACKAGE / "demo" / "digits.port") as bundle:
        graph = bundle.graph_file("network")
        found, theirs = read_graph(graph.path), onnx.load(str(graph.path), load_external_data=False)
    assert [node.name for node in found.graph.nodes] == [node.name for node in theirs.graph.node]
    assert [list(node.inputs) for node in found.graph.nodes] == [
        list(node.input) for node in theirs.graph.node
    ]
    assert Counter(node.operator for node in found.all_nodes()) == Counter(graph.entry.operators)
    assert [one.name for one in found.weights()] == [one.name for one in theirs.graph.initializer]
    assert [list(one.shape) for one in found.weights()] == [
        list(one.dims) for one in theirs.graph.initializer
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "it is empty"), (b"\x08\x07", "it holds no graph"), (b"junk, of no kind", "it is ")],
)
def test_what_is_no_graph_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{words}"):
        read_graph(tmp_path / "m.onnx")


def test_graphs_in_graphs_without_end_are_refused(tmp_path: Path) -> None:
    def wrapped(number: int, inner: bytes) -> bytes:
        length, size = bytearray(), len(inner)
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        return bytes([number << 3 | 2]) + bytes([*length, size]) + inner

    graph = b""
    for _ in range(60):  # a graph, in an attribute, of a node, of a graph
        graph = wrapped(1, wrapped(5, wrapped(6, graph)))
    (tmp_path / "m.onnx").write_bytes(wrapped(7, graph))
    with pytest.raises(ValueError, match="more than 50 deep"):
        read_graph(tmp_path / "m.onnx")
