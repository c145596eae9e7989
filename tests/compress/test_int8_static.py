from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from anyport.compress.int8_static import activation_step, ranged_values
from anyport.compress.methods import Int8Static, candidates
from anyport.compress.quantizing import quantize
from anyport.compress.ranges import Range
from anyport.compress.rewrite import Rewrite, kept_line
from anyport.graph.rewriting import load_graph
from anyport.runtime import SessionOptions, open_session
from tests.compress.smallnets import FLOAT, Arrays, convnet, pictures, textnet
from tests.compress.test_quantizing import agreement
from tests.runtime.networks import Tensors, save

if TYPE_CHECKING:
    from pathlib import Path

FLAVOURS = [method.text for method in candidates("int8-static", {})]


@pytest.mark.parametrize("text", [*FLAVOURS, "int8-static:u8s8:per-tensor", "int8-static:u8s8:entropy"])
@pytest.mark.parametrize("level", ["none", "all"])
def test_every_flavour_answers_nearly_alike(tmp_path: Path, text: str, level: str) -> None:
    graph = convnet(tmp_path / "net.onnx")
    [method] = candidates(text, {})
    found = quantize(graph, method, pictures(), tmp_path / "int8.onnx")
    assert agreement(graph, found.path, pictures(), level) > 0.995
    assert found.n_changed == 4
    assert found.kept_float == ()


def test_the_runtime_makes_integer_operators_of_all(tmp_path: Path) -> None:
    import onnxruntime as ort

    found = quantize(convnet(tmp_path / "net.onnx"), Int8Static(), pictures(), tmp_path / "int8.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(found.path), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert operators.count("QLinearConv") == 3
    assert {"QLinearAdd", "QGemm", "QLinearGlobalAveragePool"} <= set(operators)
    assert not {"Conv", "Gemm", "Relu"} & set(operators)


def test_a_value_that_others_read_as_float_stays_float_for_them(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Conv", ["e", "w"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["c", "e"], ["y"]),
    ]
    form = (FLOAT, ["batch", 20, 4, 4])
    weights = {"w": np.zeros((20, 20, 1, 1), np.float32)}
    graph = save(tmp_path / "net.onnx", nodes, Tensors({"x": form}, {"y": form}, weights))
    x = np.random.default_rng(0).normal(0, 1, (1, 20, 4, 4)).astype(np.float32)
    found = quantize(graph, Int8Static(), Arrays("noise", ({"x": x},)), tmp_path / "int8.onnx")
    session = open_session(found.path, SessionOptions(optimization="none"))
    assert session.run({"x": x})["y"] == pytest.approx(np.exp(x), rel=1e-6)


def test_a_bias_larger_than_any_step_fits(tmp_path: Path) -> None:
    graph = convnet(tmp_path / "net.onnx")
    model = onnx.load(graph)
    for weight in model.graph.initializer:
        if weight.name in {"third.weight", "third.bias"}:
            factor = np.float32(1e-9 if weight.name.endswith("weight") else 100)
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * factor, weight.name))
    onnx.save(model, graph)
    found = quantize(graph, Int8Static(), pictures(), tmp_path / "int8.onnx")
    assert agreement(graph, found.path, pictures(), "all") > 0.999


def test_a_transformer_keeps_its_sums_float(tmp_path: Path) -> None:
    rewrite = Rewrite(load_graph(textnet(tmp_path / "net.onnx")))
    assert ranged_values(rewrite) == ("rows", "mean")


@pytest.mark.parametrize("dtype", [np.dtype(np.int8), np.dtype(np.uint8)])
@pytest.mark.parametrize(
    "ends", [(0.0, 6.0), (-1.0, 3.0), (2.0, 5.0), (-5.0, -2.0), (0.0, 0.0), (0.0, 1e-40)]
)
def test_zero_is_a_step_and_the_range_fits(dtype: np.dtype[np.int8], ends: tuple[float, float]) -> None:
    step = activation_step(Range(*ends), dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    assert low <= int(step.zero) <= high
    assert step.zero.dtype == dtype
    for value in ends:
        number = round(value / float(step.scale)) + int(step.zero)
        assert low - 1 <= number <= high + 1


BIASES = {"[n]": (40,), "[1, n]": (1, 40), "a number": (), "[1]": (1,), "[1, 1]": (1, 1)}


@pytest.mark.parametrize("text", ["int8-static:u8s8", "int8-static:u8s8:per-tensor"])
@pytest.mark.parametrize("shape", BIASES.values(), ids=BIASES)
def test_every_bias_of_one_row_is_quantized(tmp_path: Path, shape: tuple[int, ...], text: str) -> None:
    graph, samples = gemm(tmp_path / "net.onnx", shape)
    [method] = candidates(text, {})
    found = quantize(graph, method, samples, tmp_path / "int8.onnx")
    assert (found.n_changed, found.kept_float) == (1, ())
    for level in ("none", "all"):
        assert agreement(graph, found.path, samples, level) > 0.99


def test_a_bias_of_several_rows_keeps_its_product_float(tmp_path: Path) -> None:
    graph, samples = gemm(tmp_path / "net.onnx", (2, 40))
    found = quantize(graph, Int8Static(), samples, tmp_path / "int8.onnx")
    assert kept_line(found.kept_float) == "1 Gemm: its bias has several rows"


def gemm(path: Path, shape: tuple[int, ...]) -> tuple[Path, Arrays]:
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(0, 0.2, (40, 32)).astype(np.float32),
        "b": random.normal(0, 1, shape).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"], transB=1),
        helper.make_node("Tanh", ["z"], ["y"]),
    ]
    graph = save(path, nodes, Tensors({"x": (FLOAT, [2, 32])}, {"y": (FLOAT, [2, 40])}, weights))
    return graph, Arrays("noise", ({"x": random.normal(0, 1, (2, 32)).astype(np.float32)},))


def test_scales_of_a_shared_weight_fit_the_bias_of_every_reader(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(0, 1e-9, (32, 32)).astype(np.float32),
        "small": np.zeros(32, np.float32),
        "large": random.normal(0, 100, 32).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w", "small"], ["a"]),
        helper.make_node("Gemm", ["x", "w", "large"], ["b"]),
        helper.make_node("Sum", ["a", "b"], ["y"]),
    ]
    form = (FLOAT, [2, 32])
    graph = save(tmp_path / "net.onnx", nodes, Tensors({"x": form}, {"y": form}, weights))
    samples = Arrays("noise", ({"x": random.normal(0, 1, (2, 32)).astype(np.float32)},))
    found = quantize(graph, Int8Static(), samples, tmp_path / "int8.onnx")
    assert agreement(graph, found.path, samples) > 0.999
