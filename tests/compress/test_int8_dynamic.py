from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from anyport.compress.methods import Int8Dynamic, candidates
from anyport.compress.quantizing import quantize
from anyport.compress.rewrite import kept_line
from tests.compress.smallnets import FLOAT, Arrays, convnet, sentences, textnet
from tests.compress.test_quantizing import agreement
from tests.runtime.networks import Tensors, save

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.compress.methods import Method

METHODS = [*candidates("int8-dynamic", {}), *candidates("int8-dynamic:u8s8:per-tensor", {})]


@pytest.mark.parametrize("method", METHODS, ids=[method.text for method in METHODS])
@pytest.mark.parametrize("level", ["none", "all"])
def test_every_flavour_answers_nearly_alike(tmp_path: Path, method: Method, level: str) -> None:
    graph = textnet(tmp_path / "net.onnx")
    found = quantize(graph, method, None, tmp_path / "int8.onnx")
    assert agreement(graph, found.path, sentences(), level) > 0.998
    assert found.n_changed == 3
    assert kept_line(found.kept_float) == "2 MatMul: no operand is a float32 weight"


def test_each_channel_has_a_scale_and_values_keep_their_names(tmp_path: Path) -> None:
    found = quantize(textnet(tmp_path / "net.onnx"), Int8Dynamic(), None, tmp_path / "int8.onnx")
    model = onnx.load(found.path)
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    assert weights["inner.weight_scale"].shape == (64,)
    assert (weights["outer.weight_quantized"].shape, weights["outer.weight_quantized"].dtype) == (
        (64, 32),
        "int8",
    )
    values = {name for node in model.graph.node for name in node.output}
    assert {"rows", "product", "hidden", "mean", "y"} <= values


def test_convolutions_stay_and_say_why(tmp_path: Path) -> None:
    found = quantize(convnet(tmp_path / "net.onnx"), Int8Dynamic(), None, tmp_path / "int8.onnx")
    assert found.n_changed == 1
    assert kept_line(found.kept_float) == "3 Conv: dynamic INT8 has no fast kernel for it"


def test_an_activation_is_quantized_once_for_all_that_multiply_it(tmp_path: Path) -> None:
    names = ("q", "k", "v")
    random = np.random.default_rng(0)
    weights = {name: random.normal(0, 1, (32, 32)).astype(np.float32) for name in names}
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}.y"]) for name in names]
    nodes.append(helper.make_node("Sum", [f"{name}.y" for name in names], ["y"]))
    form = (FLOAT, ["batch", 32])
    graph = save(tmp_path / "net.onnx", nodes, Tensors({"x": form}, {"y": form}, weights))
    found = quantize(graph, Int8Dynamic(), None, tmp_path / "int8.onnx")
    assert found.operators["DynamicQuantizeLinear"] == 1
    assert found.operators["MatMulInteger"] == 3
    x = Arrays("noise", ({"x": random.normal(0, 1, (4, 32)).astype(np.float32)},))
    assert agreement(graph, found.path, x) > 0.999


FORMS = {
    "the first operand": (["w", "x"], {}, "1 MatMul: its weight is the first operand"),
    "three axes": (["x", "cube"], {}, "1 MatMul: its weight has 3 axes"),
    "small": (["x", "small"], {}, "1 MatMul: its weight is smaller than 1 KiB"),
    "factors": (
        ["x", "w"],
        {"alpha": 0.5},
        "1 Gemm: it is a Gemm with factors, or of a transposed activation",
    ),
    "transposed": (
        ["x", "w"],
        {"transA": 1},
        "1 Gemm: it is a Gemm with factors, or of a transposed activation",
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_that_stay_float_say_why(tmp_path: Path, form: tuple[list[str], dict[str, float], str]) -> None:
    inputs, words, reason = form
    weights = {
        "w": np.ones((16, 16), np.float32),
        "cube": np.ones((2, 16, 16), np.float32),
        "small": np.ones((16, 4), np.float32),
    }
    weights = {name: array for name, array in weights.items() if name in inputs}
    node = helper.make_node("Gemm" if words else "MatMul", inputs, ["y"], **words)
    ends = {"x": (FLOAT, [16, 16])}, {"y": (FLOAT, ["a", "b", "c"] if "cube" in inputs else ["a", "b"])}
    graph = save(tmp_path / "net.onnx", [node], Tensors(*ends, weights))
    found = quantize(graph, Int8Dynamic(), None, tmp_path / "int8.onnx")
    assert kept_line(found.kept_float) == reason
    assert found.n_changed == 0
