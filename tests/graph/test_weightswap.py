from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from anyport.bundle import read_header
from anyport.errors import CheckpointError
from anyport.graph.derivations import Copied, Derivations, Folded, Norm
from anyport.graph.initializers import read_initializers
from anyport.graph.weightswap import swap_weights
from tests.graph.exports import shared

if TYPE_CHECKING:
    from pathlib import Path

W = np.arange(6, dtype=np.float32).reshape(2, 3)


def small_graph(path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(W, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"version": "1.0.0", "trained_at": "2026-01-01", "name": "small"})
    onnx.save(model, path)
    return path


def test_the_nodes_stay_and_the_weights_are_new(tmp_path: Path) -> None:
    old, new = small_graph(tmp_path / "old.onnx"), tmp_path / "new.onnx"
    rules = Derivations(state={"fc": "float32[3, 2]"}, rules={"w": Copied("fc", transposed=True)})
    swap_weights(old, new, rules, lambda _: -W.T, {"version": "1.0.1", "trained_at": ""})
    before, after = onnx.load(old), onnx.load(new)
    assert list(before.graph.node) == list(after.graph.node)
    np.testing.assert_array_equal(read_initializers(new)["w"].load(), -W)
    assert {p.key: p.value for p in after.metadata_props} == {"version": "1.0.1", "name": "small"}


def test_weights_beside_the_graph_stay_beside_it(tmp_path: Path) -> None:
    given = shared("encoder")
    old = given.store(tmp_path).path
    (tmp_path / "new").mkdir()
    swap_weights(old, tmp_path / "new" / "model.onnx", Derivations(state={}, rules={}), dict.__getitem__, {})  # type: ignore[arg-type]
    assert (tmp_path / "new" / "weights.safetensors").read_bytes() == (
        tmp_path / "weights.safetensors"
    ).read_bytes()
    assert old.read_bytes() == (tmp_path / "new" / "model.onnx").read_bytes()
    assert read_header(tmp_path / "new" / "weights.safetensors")


NORM = Norm(None, None, "mean", "var", 1e-5)


@pytest.mark.parametrize(
    ("name", "rule", "tensors", "text"),
    [
        ("q", Copied("fc"), {}, "the graph has no initializer 'q', which its modules.json speaks of"),
        (
            "w",
            Copied("fc"),
            {"fc": np.ones(5, np.float32)},
            "the graph's 'w' is FLOAT[2, 3], which 'fc' cannot be",
        ),
        (
            "w",
            Copied("fc"),
            {"fc": W.astype(np.float64)},
            "the graph's 'w' is FLOAT[2, 3], which 'fc' cannot be",
        ),
        (
            "w",
            Folded("weight", "fc", NORM),
            {"fc": W, "mean": np.zeros(2, np.float32), "var": np.array([1, -1], np.float32)},
            "the graph's 'w' would hold numbers that are not finite: 'fc', 'var' give none",
        ),
        (
            "w",
            Folded("weight", "fc", NORM),
            {"fc": W, "mean": np.zeros(2, np.float32), "var": np.ones(7, np.float32)},
            "the graph's 'w' cannot be made of 'fc', 'var': (7,) channels are not those of (2, 3)",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(
    name: str, rule: Copied | Folded, tensors: dict[str, np.ndarray], text: str, tmp_path: Path
) -> None:
    old = small_graph(tmp_path / "old.onnx")
    rules = Derivations(state={}, rules={name: rule})
    with pytest.raises(CheckpointError) as caught:
        swap_weights(old, tmp_path / "new.onnx", rules, tensors.__getitem__, {})
    assert caught.value.what == text
