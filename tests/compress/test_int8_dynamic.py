from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from anyport.compress.methods import Int8Dynamic, Int8Static, candidates
from anyport.compress.quantizing import quantize
from anyport.compress.rewrite import kept_line
from tests.compress.smallnets import FLOAT, INT64, Arrays, convnet, sentences, textnet
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


@pytest.mark.parametrize("method", [Int8Dynamic(), Int8Static()], ids=["dynamic", "static"])
@pytest.mark.parametrize("n_readers", [1, 3])
def test_a_weight_that_several_nodes_read_is_stored_once(
    tmp_path: Path, method: Int8Dynamic | Int8Static, n_readers: int
) -> None:
    random = np.random.default_rng(0)
    biases = {f"b{i}": random.normal(0, 1, 64).astype(np.float32) for i in range(n_readers)}
    weights = {"w": random.normal(0, 0.1, (64, 64)).astype(np.float32), **biases}
    nodes = [
        helper.make_node("Gemm", [f"h{i}" if i else "x", "w", f"b{i}"], [f"h{i + 1}"])
        for i in range(n_readers)
    ]
    nodes.append(helper.make_node("Tanh", [f"h{n_readers}"], ["y"]))
    form = (FLOAT, ["batch", 64])
    graph = save(tmp_path / "net.onnx", nodes, Tensors({"x": form}, {"y": form}, weights))
    x = Arrays("noise", ({"x": random.normal(0, 1, (4, 64)).astype(np.float32)},))
    found = quantize(graph, method, x, tmp_path / "int8.onnx")
    assert agreement(graph, found.path, x) > 0.99
    assert found.n_changed == 1
    large = [w for w in onnx.load(found.path).graph.initializer if np.prod(w.dims) == 64 * 64]
    assert [(w.name, w.data_type) for w in large] == [("w_quantized", onnx.TensorProto.INT8)]


TIES = {
    "transposed by a node": (
        [
            helper.make_node("Transpose", ["table"], ["turned"]),
            helper.make_node("MatMul", ["m", "turned"], ["y"]),
        ],
        ["batch", 100],
        [FLOAT],
        {
            "1 Gather: a Transpose reads the same weight as float",
            "1 MatMul: no operand is a float32 weight",
        },
    ),
    "as the first operand": (
        [
            helper.make_node("Transpose", ["m"], ["turned"], perm=[1, 0]),
            helper.make_node("MatMul", ["table", "turned"], ["y"]),
        ],
        [100, "batch"],
        [FLOAT],
        {"1 Gather: a MatMul reads the same weight as float", "1 MatMul: its weight is the first operand"},
    ),
    "transposed by Gemm": (
        [helper.make_node("Gemm", ["m", "table"], ["y"], transB=1)],
        ["batch", 100],
        [onnx.TensorProto.INT8] * 2,  # one for each layout
        set(),
    ),
    "by two tables": (
        [
            helper.make_node("Gather", ["table", "ids"], ["again"]),
            helper.make_node("Add", ["again", "rows"], ["y"]),
        ],
        ["batch", 6, 64],
        [onnx.TensorProto.INT8],
        set(),
    ),
}


@pytest.mark.parametrize("method", [Int8Dynamic(), Int8Static()], ids=["dynamic", "static"])
@pytest.mark.parametrize("tie", TIES.values(), ids=TIES)
def test_a_tied_table_never_makes_the_file_larger(
    tmp_path: Path,
    tie: tuple[list[onnx.NodeProto], list[int | str], list[int], set[str]],
    method: Int8Dynamic | Int8Static,
) -> None:
    nodes, shape, kinds, reasons = tie
    table = np.random.default_rng(8).normal(0, 1, (100, 64)).astype(np.float32)
    first = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axis"], ["m"], keepdims=0),
    ]
    ends = {"ids": (INT64, ["batch", 6])}, {"y": (FLOAT, shape)}
    weights = {"table": table, "axis": np.array([1])}
    graph = save(tmp_path / "net.onnx", [*first, *nodes], Tensors(*ends, weights))
    found = quantize(graph, method, sentences(), tmp_path / "int8.onnx")
    assert agreement(graph, found.path, sentences()) > 0.99
    large = [w.data_type for w in onnx.load(found.path).graph.initializer if np.prod(w.dims) == 6400]
    assert large == kinds
    assert set(kept_line(found.kept_float).split("; ")) - {""} == reasons
    assert found.size_bytes < graph.stat().st_size + 1000
