"""Exported program to ONNX: the opset, the names and the axes that were declared, whatever torch writes."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from anyport.errors import AxisError, ExportError, UsageError
from anyport.graph import convert as room
from anyport.graph.capture import capture
from anyport.graph.convert import MAX_OPSET, MIN_OPSET, check_axes, convert
from anyport.graph.storing import StoreOptions, store
from tests.graph.exports import PARTS, Export, export, holds, run_onnx, shared, weights_of
from tests.source.parts import BATCH, X, Y, part_of

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.graph.capture import Capture
    from anyport.graph.convert import Converted

INSIDE = StoreOptions("inside")
TWO = {"x": "float32[batch, 8]", "y": "float32[batch, 8]"}


def names(values: object) -> list[str | None]:
    return [value.name for value in values]  # type: ignore[attr-defined]


@pytest.fixture(scope="module", name="linear")
def _linear() -> Export:
    torch.manual_seed(0)
    return export(part_of(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), {"input": X["x"]}, Y))


# ── opset ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("opset", range(MIN_OPSET, MAX_OPSET + 1))
def test_the_opset_asked_for_is_written(linear: Export, opset: int, tmp_path: Path) -> None:
    graph = store(convert(linear.captured, linear.part, opset), tmp_path / "m.onnx", INSIDE)
    file = onnx.load(str(graph.path))
    assert {entry.domain: entry.version for entry in file.opset_import}[""] == opset == graph.opset
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
    expected = linear.part.module(torch.from_numpy(x)).detach().numpy()
    assert np.allclose(run_onnx(graph.path, {"input": x})["y"], expected, atol=1e-6)


@pytest.mark.parametrize("opset", [0, 12, MIN_OPSET - 1, MAX_OPSET + 1])
def test_other_opsets_are_refused(linear: Export, opset: int) -> None:
    with pytest.raises(UsageError, match=re.escape(f"opset {opset} cannot be written: 18..23 can")):
        convert(linear.captured, linear.part, opset)


def test_an_opset_that_torch_changed_is_an_error(linear: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for 12, 15 and 17, torch wrote 18 with a line in its log."""
    true = room._translate
    monkeypatch.setattr(room, "_translate", lambda captured, part, _opset: true(captured, part, 18))
    with pytest.raises(ExportError, match="opset 21 was asked for and the exporter wrote 18") as caught:
        convert(linear.captured, linear.part, 21)
    assert caught.value.do == "--opset 18"


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", PARTS)
def test_names_and_axes_are_the_declared_ones(name: str) -> None:
    given = shared(name)
    graph = given.converted.model.graph
    for values, specs in (
        (graph.inputs, given.part.signature.inputs),
        (graph.outputs, given.part.signature.outputs),
    ):
        assert names(values) == [spec.name for spec in specs]
        for value, spec in zip(values, specs, strict=True):
            assert str(value.shape) == f"[{','.join(axis.text for axis in spec.axes)}]"


@pytest.mark.parametrize("name", PARTS)
def test_weights_have_the_names_of_the_module(name: str) -> None:
    given = shared(name)
    weights = weights_of(given.part.module)
    assert given.converted.weight_names
    assert given.converted.weight_names <= set(weights)
    for weight in given.converted.weight_names:
        value = given.converted.model.graph.initializers[weight].const_value
        assert value is not None
        assert value.size == weights[weight].size
        if name in {"bert", "encoder", "vit"}:  # the others fold a norm into the convolution before it
            assert holds(value.numpy(), weights[weight])


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = torch.tanh(self.linear(x) * 2) + 1
        return answer


@cache
def chain() -> Capture:
    return capture(part_of(Chain()))


def inner_names() -> list[str]:
    model = convert(chain(), part_of(Chain())).model
    inner = [value.name for node in model.graph for value in node.outputs]
    return [*model.graph.initializers, *filter(None, inner)][:4]


def test_an_output_named_like_anything_inside(tmp_path: Path) -> None:
    """Such a file is invalid, and torch.onnx writes it without a word (targets.md, T1)."""
    taken = inner_names()
    assert len(taken) == 4
    assert {"linear.weight", "linear.bias"} & set(taken)
    captured = chain()
    for name in taken:
        part = part_of(Chain(), X, {name: "float32[batch, 8]"})
        graph = store(convert(captured, part), tmp_path / "m.onnx", INSIDE)
        answer = run_onnx(graph.path, {"x": np.ones((2, 8), np.float32)})
        assert list(answer) == [name]


class Ends(nn.Module):
    """Outputs that are inputs, weights, or one tensor twice."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(8.0))

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        total = x + y
        return {"sum": total, "x": x, "again": total, "table": self.get_buffer("table"), "y": y}


@pytest.mark.parametrize("order", [("sum", "x", "again", "table", "y"), ("y", "table", "x", "again", "sum")])
def test_outputs_that_are_no_results_of_their_own(order: tuple[str, ...], tmp_path: Path) -> None:
    keys = {"sum": "sum", "x": "x", "again": "again", "table": "table", "y": "y"}
    outputs = {keys[key]: "float32[8]" if key == "table" else "float32[batch, 8]" for key in order}
    inputs = {"left": X["x"], "right": X["x"]}
    graph = export(part_of(Ends(), inputs, outputs)).store(tmp_path, INSIDE)
    feeds = {"left": np.ones((3, 8), np.float32), "right": np.full((3, 8), 2, np.float32)}
    answer = run_onnx(graph.path, feeds)
    expected = {
        "sum": np.full((3, 8), 3),
        "again": np.full((3, 8), 3),
        "x": np.ones((3, 8)),
        "y": np.full((3, 8), 2),
        "table": np.arange(8.0),
    }
    assert list(answer) == list(order)
    assert all(np.array_equal(answer[name], expected[name]) for name in order)


class Swap(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return b * 2, a * 3


@pytest.mark.parametrize("outputs", [("mul_1", "mul"), ("tensors_1", "tensors_0")])
def test_ends_may_swap_the_names_that_torch_gave(outputs: tuple[str, str], tmp_path: Path) -> None:
    inputs = {"a": X["x"], "b": X["x"]}
    part = part_of(Swap(), inputs, dict.fromkeys(outputs, "float32[batch, 8]"))
    graph = export(part).store(tmp_path, INSIDE)
    one = np.ones((2, 8), np.float32)
    answer = run_onnx(graph.path, {"a": one, "b": one * 10})
    assert [float(answer[name][0, 0]) for name in outputs] == [20.0, 3.0]


def test_inputs_may_swap_the_names_that_torch_gave(tmp_path: Path) -> None:
    inputs = {"tensors_1": X["x"], "tensors_0": X["x"]}
    graph = export(part_of(Swap(), inputs, TWO)).store(tmp_path, INSIDE)
    one = np.ones((2, 8), np.float32)
    answer = run_onnx(graph.path, {"tensors_1": one, "tensors_0": one * 10})
    assert [float(answer[name][0, 0]) for name in ("x", "y")] == [20.0, 3.0]


class DictOfTwo(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"b": x * 2, "a": x * 3, "unused": x * 4, "label": x.argmax(1)}


@pytest.mark.parametrize("order", [("a", "b", "label"), ("label", "b")])
def test_a_dict_answers_in_the_declared_order(order: tuple[str, ...], tmp_path: Path) -> None:
    outputs = {name: "int64[batch]" if name == "label" else "float32[batch, 8]" for name in order}
    graph = export(part_of(DictOfTwo(), X, outputs)).store(tmp_path, INSIDE)
    answer = run_onnx(graph.path, {"x": np.eye(8, dtype=np.float32)})
    expected = {"a": np.eye(8) * 3, "b": np.eye(8) * 2, "label": np.arange(8)}
    assert list(answer) == list(order)
    assert all(np.array_equal(answer[name], expected[name]) for name in order)


# ── axes ────────────────────────────────────────────────────────────────────────────────────────────────
class Down(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 8, stride=8)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.conv(x)
        return answer


def test_computed_axes_are_written_as_declared(tmp_path: Path) -> None:
    part = part_of(
        Down(),
        {"x": "float32[batch, 3, height, width]"},
        {"y": "float32[batch, 2, height//8, width//8]"},
        BATCH | {"height": "16..64:8", "width": "16..64:8"},
    )
    graph = export(part).store(tmp_path, INSIDE)
    file = onnx.load(str(graph.path))
    axes = [axis.dim_param or axis.dim_value for axis in file.graph.output[0].type.tensor_type.shape.dim]
    assert axes == ["batch", 2, "height//8", "width//8"]
    assert run_onnx(graph.path, {"x": np.ones((1, 3, 64, 24), np.float32)})["y"].shape == (1, 2, 8, 3)


WRONG = [
    (
        Y | {"y": "float32[5, 8]"},
        AxisError,
        (
            "axis 0 of 'y' was declared as 5, the graph has it dynamic\n"
            "  where: axis 0 of tensor 'y', part 'network'\n"
            "  do:    give it a name: it may be new, such as n_boxes, or computed, such as height//8"
        ),
    ),
    (
        {"y": "float32[batch, width]"},
        AxisError,
        (
            "axis 'width' was asked for as dynamic, the graph has the constant 8\n"
            "  where: axis 1 of tensor 'y', part 'network'\n"
            "  do:    declare it as 8, or find what makes it constant"
        ),
    ),
    ({"y": "float32[batch, 9]"}, AxisError, "axis 1 of 'y' is declared as 9, the model has 8"),
    (
        {"y": "float32[batch]"},
        AxisError,
        "tensor 'y' of part 'network' has the shape [",
    ),
    (
        {"y": "int64[batch, 8]"},
        ExportError,
        "tensor 'y' of part 'network' is FLOAT in the graph, not int64[batch, 8]",
    ),
]


@pytest.mark.parametrize(("outputs", "kind", "text"), WRONG)
def test_the_axis_contract(outputs: dict[str, str], kind: type[ExportError], text: str) -> None:
    captured = chain()
    with pytest.raises(kind, match=re.escape(text)):
        convert(captured, part_of(Chain(), X, outputs))


def test_an_input_axis_that_became_constant(linear: Export) -> None:
    """What torch.onnx does in silence when it is given the module; the program is caught before."""
    model = convert(linear.captured, linear.part).model
    model.graph.inputs[0].shape = ir.Shape([3, 8])
    with pytest.raises(
        AxisError, match="axis 'batch' was asked for as dynamic, the graph has the constant 3"
    ):
        check_axes(model, linear.part)


def test_an_input_that_no_node_reads(linear: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program read it, and the optimizer found that nothing depends on it."""
    true = room._translate

    def lose(*given: object) -> ir.Model:
        model = true(*given)  # type: ignore[arg-type]
        spare = ir.Value(name="t", shape=ir.Shape([3, 8]), type=ir.TensorType(ir.DataType.FLOAT))
        for use in list(model.graph.inputs[0].uses()):
            use.node.replace_input_with(use.idx, spare)
        return model

    monkeypatch.setattr(room, "_translate", lose)
    text = "input 'input' of part 'network' is declared, and no node of the graph reads it"
    with pytest.raises(ExportError, match=re.escape(text)):
        convert(linear.captured, linear.part)


def test_a_graph_that_lost_an_output(linear: Export) -> None:
    part = part_of(nn.Sequential(nn.Linear(8, 8)), {"input": X["x"]}, TWO)
    with pytest.raises(ExportError, match="has 1 inputs and 1 outputs, 1 and 2 are declared"):
        convert(linear.captured, part)


def converted_names(given: Converted) -> list[str | None]:
    return [value.name for node in given.model.graph for value in node.outputs]


@pytest.mark.parametrize("name", ["encoder"])
def test_names_inside_are_the_same_every_time(name: str) -> None:
    given = shared(name)
    assert converted_names(convert(given.captured, given.part)) == converted_names(given.converted)
