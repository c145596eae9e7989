"""Weights of 16 bits: half the bytes, and not one bit of an answer is another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from anyport.bundle import read_header
from anyport.graph.narrow import (
    LEAST_BYTES,
    Widened,
    is_narrow,
    narrow_weights,
    store_narrow,
    widen,
    widened,
)
from anyport.graph.rewriting import load_graph
from anyport.graph.storing import check_file, count_stored, write_model
from anyport.runtime import SessionOptions, open_session
from tests.compress.smallnets import convnet, pictures, sentences, textnet
from tests.graph.narrowgraphs import HALVES, pair, rounded
from tests.runtime.networks import Tensors, save

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.runtime import Optimization

SIDE = 32
FORM = (TensorProto.FLOAT, ["n", SIDE])
NUMBERS = np.random.default_rng(0).normal(0, 1, (SIDE, SIDE)).astype(np.float32)


def model_of(weights: dict[str, np.ndarray], opset: int = 20, outputs: tuple[str, ...] = ("y",)) -> ir.Model:
    """Multiply the input by every weight."""
    nodes = [
        helper.make_node("MatMul", [f"y{i}" if i else "x", name], [f"y{i + 1}"])
        for i, name in enumerate(weights)
    ]
    nodes.append(helper.make_node("Identity", [f"y{len(weights)}"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", *FORM)],
        [helper.make_tensor_value_info(name, *FORM) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return ir.serde.deserialize_model(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def types(model: ir.Model) -> dict[str, str]:
    return {
        name: value.const_value.dtype.name.lower()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("net", ["conv", "text"])
def test_every_answer_is_bit_equal_and_the_weights_are_half_as_large(
    net: str, half: str, beside: bool, tmp_path: Path
) -> None:
    graph = {"conv": convnet, "text": textnet}[net](tmp_path / "net.onnx")
    found = pair(graph, half, beside=beside)
    check_file(found.narrow)
    onnx.checker.check_model(str(found.narrow), full_check=True)
    wide, narrow = (count_stored(ir.load(path)) for path in (found.wide, found.narrow))
    assert narrow[half] == (wide["float32"] - narrow["float32"]) / 2 > 10 * narrow["float32"]
    levels: tuple[Optimization, ...] = ("none", "basic", "extended", "all")
    for level in levels:
        one, other = (open_session(p, SessionOptions(optimization=level)) for p in (found.wide, found.narrow))
        for feeds in pictures() if net == "conv" else sentences():
            answer, again = one.run(feeds)["y"], other.run(feeds)["y"]
            # where the runtime folds no Cast, its kernels take the weight unpacked, and add in another order
            np.testing.assert_allclose(again, answer, rtol=1e-5, atol=1e-6)
            assert level == "none" or answer.tobytes() == again.tobytes()
        one.close()
        other.close()


@pytest.mark.parametrize("half", HALVES)
def test_weights_keep_their_names_and_casts_stand_first(half: str, tmp_path: Path) -> None:
    found = pair(textnet(tmp_path / "net.onnx"), half)
    model = onnx.load(found.narrow, load_external_data=False)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds[:4] == ["Cast", "Cast", "Cast", "Gather"]
    assert kinds.count("Cast") == 3
    stored = {
        entry.name: entry.dtype for entry in read_header(found.narrow.parent / "weights.safetensors").values()
    }
    code = {"bfloat16": "BF16", "float16": "F16"}[half]
    assert {name for name, dtype in stored.items() if dtype == code} == {
        "table",
        "inner.weight",
        "outer.weight",
    }


@pytest.mark.parametrize("half", HALVES)
def test_a_graph_that_is_read_again_is_the_wide_one(half: str, tmp_path: Path) -> None:
    found = pair(convnet(tmp_path / "net.onnx"), half)
    wide, again = load_graph(found.wide), load_graph(found.narrow)
    assert (is_narrow(wide), is_narrow(again)) == (False, True)
    assert [str(node) for node in again.graph] == [str(node) for node in wide.graph]
    assert again.graph.initializers.keys() == wide.graph.initializers.keys()
    for name, value in wide.graph.initializers.items():
        one, other = value.const_value, again.graph.initializers[name].const_value
        assert one is not None
        assert other is not None
        assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())
    narrow_weights(again)
    write_model(again, tmp_path / "narrow" / "again.onnx")
    assert (tmp_path / "narrow" / "again.onnx").read_bytes() == found.narrow.read_bytes()


ODD = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.5, 2.0**-24, -(2.0**-14), 240.0]


@pytest.mark.parametrize("half", HALVES)
def test_odd_numbers_keep_their_bits(half: str) -> None:
    array = rounded(NUMBERS, half)
    array.reshape(-1)[: len(ODD)] = ODD
    model = model_of({"w": array})
    narrow_weights(model)
    assert types(model) == {"w": half}
    tensor = widen(model).graph.initializers["w"].const_value
    assert isinstance(tensor, Widened)
    assert tensor.numpy().tobytes() == tensor.tobytes() == array.tobytes()


@pytest.mark.parametrize("place", [0, 5_000, -1])
@pytest.mark.parametrize("half", HALVES)
def test_one_number_that_does_not_fit_keeps_its_tensor_in_32_bits(half: str, place: int) -> None:
    large = rounded(np.random.default_rng(1).normal(0, 1, (SIDE, 1 << 16)).astype(np.float32), half)
    assert large.size > 1 << 20
    large.reshape(-1)[place] = np.float32(1) + np.float32(2**-23)
    weights = {"first": rounded(NUMBERS, half), "second": large[:, :SIDE].copy(), "large": large}
    model = model_of(weights)
    narrow_weights(model)
    assert set(types(model).values()) == {"float"}  # what fits is 0.1 % of the bytes
    model = model_of(
        {"first": weights["first"], "second": weights["first"], "other": large[:, -SIDE:].copy()}
    )
    narrow_weights(model)
    last = "float" if place == -1 else half
    assert types(model) == {"first": half, "second": half, "other": last}


def test_a_model_of_float32_is_left_alone_and_constants_say_nothing() -> None:
    constants = {"ones": np.ones((SIDE, SIDE), np.float32), "zeros": np.zeros((SIDE, SIDE), np.float32)}
    for weights in ({"w": NUMBERS}, {"w": NUMBERS, **constants}, constants):
        model = model_of(weights)
        before = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
        narrow_weights(model)
        assert ir.serde.serialize_model(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("half", HALVES)
def test_beside_weights_of_16_bits_constants_and_merged_weights_are_told_apart(half: str) -> None:
    own = rounded(NUMBERS, half)
    weights = {"own": own, "ones": np.ones_like(own), "merged": own + NUMBERS / 7}
    model = model_of(weights)
    narrow_weights(model)
    # one fits both types, and goes with the others
    assert types(model) == {"own": half, "ones": half, "merged": "float"}


def test_small_weights_and_ends_of_the_graph_are_left() -> None:
    small = rounded(NUMBERS, "bfloat16").reshape(-1)[: LEAST_BYTES // 4 - 1].copy()
    nodes = [helper.make_node("Add", ["x", "small"], ["y"])]
    form = (TensorProto.FLOAT, ["n", small.size])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", *form)],
        [helper.make_tensor_value_info("y", *form)],
        [onnx.numpy_helper.from_array(small, "small")],
    )
    model = ir.serde.deserialize_model(helper.make_model(graph, ir_version=8))
    narrow_weights(model)
    assert types(model) == {"small": "float"}
    weights = {"w": rounded(NUMBERS, "bfloat16"), "given": rounded(NUMBERS, "bfloat16")}
    model = model_of(weights, outputs=("y", "given"))
    narrow_weights(model)
    assert types(model) == {"w": "bfloat16", "given": "float"}


@pytest.mark.parametrize(
    ("opset", "half", "stored"),
    [(12, "bfloat16", "float"), (12, "float16", "float16"), (13, "bfloat16", "bfloat16")],
)
def test_bfloat16_needs_a_cast_that_reads_it(opset: int, half: str, stored: str) -> None:
    model = model_of({"w": rounded(NUMBERS / 1e6, half)}, opset)
    narrow_weights(model)
    assert types(model) == {"w": stored}


def test_a_graph_that_computes_with_the_16_bits_is_not_widened(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
        helper.make_node("Neg", ["w"], ["minus"]),
        helper.make_node("Cast", ["v"], ["z"], to=TensorProto.FLOAT),
    ]
    halves = {"w": NUMBERS.astype(np.float16), "v": NUMBERS.astype(np.float16)}
    outputs = {
        "y": FORM,
        "minus": (TensorProto.FLOAT16, [SIDE, SIDE]),
        "z": (TensorProto.FLOAT, [SIDE, SIDE]),
    }
    path = save(tmp_path / "half.onnx", nodes, Tensors({"x": FORM}, outputs, halves))
    model = load_graph(path)
    assert not is_narrow(model)
    assert len(model.graph) == len(nodes)


def test_names_that_are_taken_are_not_given_twice() -> None:
    own = rounded(NUMBERS, "float16")
    model = model_of({"w": own, "w_float32": own})
    store_narrow(model, dict.fromkeys(("w", "w_float32"), ir.DataType.FLOAT16))
    names = [value.name for node in model.graph for value in node.outputs]
    assert names[:2] == ["w_float32_", "w_float32_float32"]
    assert len({*names, *model.graph.initializers}) == len(names) + 2


def test_a_weight_is_read_up_to_the_first_block_that_does_not_fit() -> None:
    seen: list[int] = []

    class Watched(np.ndarray):
        def __getitem__(self, place: object) -> np.ndarray:
            part: np.ndarray = np.asarray(self).__getitem__(place)  # type: ignore[call-overload]
            seen.append(part.size)
            return part

    from anyport.graph import narrow

    array = np.random.default_rng(2).normal(0, 1, 1 << 21).astype(np.float32).view(Watched)
    blocks = narrow._blocks(array)
    assert not narrow._holds(ir.DataType.BFLOAT16, next(blocks))
    assert seen == [1 << 12]


def test_widening_reads_bits_and_numbers() -> None:
    halves = np.array([1.5, -0.0, np.inf], np.float16)
    assert widened(halves).tobytes() == halves.astype(np.float32).tobytes()
    assert widened(np.array(0x4000, np.uint16)).shape == ()
    assert float(widened(np.array(0x4000, np.uint16))) == 2.0
