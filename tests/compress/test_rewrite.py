from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from anyport.compress.rewrite import KeptFloat, Rewrite, is_small, kept_line
from anyport.graph.rewriting import load_graph
from anyport.graph.storing import write_model
from tests.compress.smallnets import FLOAT, textnet
from tests.runtime.networks import Tensors, save

if TYPE_CHECKING:
    from pathlib import Path


def test_a_node_is_replaced_under_its_name(tmp_path: Path) -> None:
    rewrite = Rewrite(load_graph(textnet(tmp_path / "net.onnx")))
    node = next(node for node in rewrite.graph if node.outputs[0].name == "y")
    made = rewrite.node("Identity", [node.inputs[0]], ["mean"])
    assert made.outputs[0].name == "mean_2"  # that name is taken
    rewrite.replace(node, rewrite.insert(node, made))
    assert [value.name for value in rewrite.graph.outputs] == ["y"]
    rewrite.drop_unread()
    assert set(rewrite.graph.initializers) == {"table", "inner.weight", "inner.bias", "axis"}
    write_model(rewrite.model, tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx").graph.node[-1].op_type == "Identity"


def test_constants_keep_their_shape_and_late_ones_are_made_when_asked_for(tmp_path: Path) -> None:
    rewrite = Rewrite(load_graph(textnet(tmp_path / "net.onnx")))
    assert rewrite.constant("scalar", np.array(2.0, np.float32)).const_value.shape == ()  # type: ignore[union-attr]
    asked: list[int] = []

    def make() -> np.ndarray:
        asked.append(1)
        return np.ones((2, 3), np.int8)

    late = rewrite.late("late", (ir.DataType.INT8, (2, 3)), make)
    assert not asked
    assert late.const_value is not None
    assert late.const_value.numpy().shape == (2, 3)
    late.const_value.numpy()
    assert len(asked) == 2  # nothing is kept


def test_nodes_in_branches_are_noted(tmp_path: Path) -> None:
    form = [helper.make_tensor_value_info("out", FLOAT, None)]
    inner = [helper.make_node("MatMul", ["x", "w"], ["out"])]
    other = [helper.make_node("Identity", ["x"], ["out"])]
    branches = {
        "then_branch": helper.make_graph(inner, "then", [], form),
        "else_branch": helper.make_graph(other, "else", [], form),
    }
    nodes = [helper.make_node("If", ["flag"], ["y"], **branches)]
    ends = {"x": (FLOAT, [16, 16]), "flag": (onnx.TensorProto.BOOL, [])}, {"y": (FLOAT, None)}
    path = save(tmp_path / "net.onnx", nodes, Tensors(*ends, {"w": np.ones((16, 16), np.float32)}))
    rewrite = Rewrite(load_graph(path))
    rewrite.keep_inner_nodes()
    assert rewrite.kept == [KeptFloat("out", "MatMul", "it is inside a branch or a loop")]


def test_reasons_are_counted() -> None:
    kept = [
        KeptFloat("a", "Conv", "slow"),
        KeptFloat("b", "MatMul", "both"),
        KeptFloat("c", "MatMul", "both"),
    ]
    assert kept_line(kept) == "2 MatMul: both; 1 Conv: slow"
    assert kept_line([]) == ""


def test_small_is_below_one_kibibyte() -> None:
    assert is_small(ir.Tensor(np.zeros(255, np.float32)))
    assert not is_small(ir.Tensor(np.zeros(256, np.float32)))
