from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper

from anyport.compress.rewrite import Rewrite, kept_line
from anyport.compress.static_plan import StaticPlan, plan_static
from anyport.graph.rewriting import load_graph
from tests.compress.smallnets import FLOAT, convnet, textnet
from tests.runtime.networks import Tensors, save

if TYPE_CHECKING:
    from pathlib import Path

    import onnx


def planned(path: Path) -> tuple[StaticPlan, str]:
    rewrite = Rewrite(load_graph(path))
    plan = plan_static(rewrite)
    return plan, kept_line(rewrite.kept)


def test_a_residual_network_is_int8_from_end_to_end(tmp_path: Path) -> None:
    plan, kept = planned(convnet(tmp_path / "net.onnx"))
    assert [node.op_type for node in plan.weighted] == ["Conv", "Conv", "Conv", "Gemm"]
    assert [node.op_type for node in plan.following] == ["Add", "GlobalAveragePool", "Flatten"]
    # behind a Relu the range is the Relu's; what is only moved has no range of its own
    assert [value.name for value in plan.ranged] == ["x", "r1", "c2", "r2", "r3", "pooled"]
    assert kept == ""


def test_products_of_activations_stay_float_and_say_why(tmp_path: Path) -> None:
    plan, kept = planned(textnet(tmp_path / "net.onnx"))
    assert [node.op_type for node in plan.weighted] == ["MatMul", "Gemm"]
    assert plan.following == ()
    assert [value.name for value in plan.ranged] == ["rows", "mean"]
    assert kept == "2 MatMul: no operand is a float32 weight"


def conv(source: str, target: str, weight: str = "w") -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [target], kernel_shape=[1, 1])


PICTURE = (FLOAT, ["batch", 20, 4, 4])
WEIGHT = {"w": np.ones((20, 20, 1, 1), np.float32)}
TAILS = {
    "a result of the model": ([conv("x", "y")], [], "1 Conv: its result is an output of the model"),
    "a tail that nobody reads": (
        [conv("x", "a"), conv("x", "b"), helper.make_node("Mul", ["a", "b"], ["y"])],
        ["a", "b", "x"],
        "",
    ),
    "a sum with what is float": (
        [
            conv("x", "a"),
            helper.make_node("Add", ["a", "x"], ["s"]),
            conv("s", "b"),
            helper.make_node("Exp", ["b"], ["y"]),
        ],
        ["a", "b", "s", "x"],
        "",
    ),
    "a computed weight": (
        [helper.make_node("Exp", ["w"], ["v"]), conv("x", "a", "v"), helper.make_node("Exp", ["a"], ["y"])],
        [],
        "1 Conv: no operand is a float32 weight",
    ),
    "a kernel that nobody has": (
        [helper.make_node("ConvTranspose", ["x", "w"], ["a"]), helper.make_node("Exp", ["a"], ["y"])],
        [],
        "1 ConvTranspose: static INT8 has no kernel for it",
    ),
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_what_stays_float(tmp_path: Path, tail: tuple[list[onnx.NodeProto], list[str], str]) -> None:
    nodes, ranged, reason = tail
    path = save(tmp_path / "net.onnx", nodes, Tensors({"x": PICTURE}, {"y": PICTURE}, WEIGHT))
    plan, kept = planned(path)
    assert sorted(str(value.name) for value in plan.ranged) == ranged
    assert plan.following == ()
    assert kept == reason
