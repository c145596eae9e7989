"""From PyTorch to an exported program: what goes through, and what is refused at which line of the user."""

from __future__ import annotations

import itertools
import logging
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyport.errors import AnyportError, AxisError, ExportError, RefusedModelError
from anyport.graph.capture import capture, example_sizes, quiet
from anyport.graph.convert import convert
from anyport.graph.storing import StoreOptions, store
from anyport.recipe import Part
from anyport.runtime import open_session
from anyport.tensors import dim
from tests.graph import usermodules as user
from tests.graph.exports import class_line, line_of
from tests.source.parts import BATCH, X, Y, part_of, signature

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WIDE = {"x": "float32[batch, n]"}
TWO_DIMS = BATCH | {"n": "2..32"}
CURE_AXIS = (
    "compute with x.shape[i] as a number (not torch.as_tensor(x.shape[i]), not a Python branch), "
    "or declare the axis fixed, or give the dim a step it divides by (64..1024:32)"
)
CURE_VALUE = "compute it outside the model and give it as an input, or use torch.where / torch.cond"
CURE_OPERATOR = "rewrite that line with operators that ONNX has"


@dataclass(frozen=True)
class Row:
    """One module, its signature, and the error: its kind, what it says, where and what to do."""

    module: type[nn.Module]
    kind: type[AnyportError]
    what: str
    where: str | None = None
    do: str | None = None
    inputs: Mapping[str, str] = field(default_factory=lambda: X)
    outputs: Mapping[str, str] = field(default_factory=lambda: Y)
    dims: Mapping[str, str] = field(default_factory=lambda: BATCH)


def by_value(module: type[nn.Module]) -> Row:
    what = "part 'network' decides something by a value: Could not guard on data-dependent expression"
    return Row(module, ExportError, what, line_of(module.__name__), CURE_VALUE)


def specialised(module: type[nn.Module], axis: str = "batch", **signature: Mapping[str, str]) -> Row:
    what = f"axis '{axis}' of part 'network' was asked for as dynamic, and the model makes it constant"
    return Row(module, AxisError, what, line_of(module.__name__), CURE_AXIS, **signature)


def random(module: type[nn.Module], operator: str) -> Row:
    what = f"part 'network' draws random numbers ({operator}): each run would differ"
    do = "take the noise as an input, or keep it in a buffer"
    return Row(module, RefusedModelError, what, line_of(module.__name__), do)


def stateful(module: type[nn.Module], where: str) -> Row:
    what = "part 'network' writes to its own buffer 'runs': each run would change the next"
    do = "give the state as an input and return it as an output"
    return Row(module, RefusedModelError, what, where, do)


CAPTURE = [
    by_value(user.BranchOnValue),
    by_value(user.LoopOnValue),
    Row(
        user.ItemAsInt,
        ExportError,
        "part 'network' decides something by a value: Could not extract specialized integer from data-dep",
        line_of("ItemAsInt"),
        CURE_VALUE,
        outputs={"y": "float32[batch, k]"},
    ),
    Row(
        user.NumpyTrip,
        ExportError,
        "part 'network' cannot be exported: RuntimeError: .numpy() is not supported for tensor subclasses.",
        line_of("NumpyTrip"),
    ),
    specialised(user.ShapeAsTensor, "n", inputs=WIDE, outputs={"y": "float32[batch, n]"}, dims=TWO_DIMS),
    specialised(user.BranchOnShape),
    specialised(user.FixedView),
    random(user.RandnInForward, "randn_like"),
    random(user.NormalInForward, "normal_"),
    random(user.AttentionDropout, "scaled_dot_product_attention"),
    Row(
        user.BatchNormTraining,
        RefusedModelError,
        "part 'network' runs batch_norm in training mode",
        line_of("BatchNormTraining"),
        "pass training=self.training, and call model.eval()",
    ),
    Row(
        user.DropoutDefault,
        RefusedModelError,
        "part 'network' runs dropout in training mode",
        f"module 'block.1', {line_of('FunctionalDropout')}",
        "pass training=self.training, and call model.eval()",
    ),
    stateful(user.CountsItsRuns, line_of("CountsItsRuns")),
    stateful(user.KeepsAnElement, line_of("KeepsAnElement")),
    stateful(user.KeepsHalf, line_of("KeepsHalf")),
    stateful(user.ReplacesItsBuffer, class_line("ReplacesItsBuffer")),
    Row(
        user.DeadInput,
        ExportError,
        "input 'mask' of part 'network' is declared, and nothing reads its values",
        class_line("DeadInput"),
        "leave it out of the inputs, or find where the model loses it",
        inputs=X | {"mask": "float32[batch, 8]"},
    ),
    Row(
        user.ShapeOnlyInput,
        ExportError,
        "input 'mask' of part 'network' is declared, and nothing reads its values",
        class_line("ShapeOnlyInput"),
        inputs=X | {"mask": "float32[batch, 8]"},
    ),
    Row(
        user.ModeOption,
        RefusedModelError,
        "forward() has the option mode='fast', and the graph would hold that one branch only",
        class_line("ModeOption"),
        'say which you want under [arguments] (--argument on the command line): mode = "fast"',
    ),
]
CONVERT = [
    Row(
        user.ComplexRope,
        ExportError,
        "part 'network' has no translation to ONNX: No ONNX function found for <OpOverload(op='aten.split'",
        line_of("ComplexRope"),
        CURE_OPERATOR,
        inputs={"x": "float32[batch, 8, 4]"},
        outputs={"y": "float32[batch, 8, 4]"},
    ),
    Row(
        user.NoSuchOperator,
        ExportError,
        "part 'network' has no translation to ONNX: No ONNX function found for "
        "<OpOverload(op='aten.linalg_eig'",
        line_of("NoSuchOperator"),
        CURE_OPERATOR,
        inputs={"x": "float32[4, 4]"},
        outputs={"y": "float32[4]"},
        dims={},
    ),
    Row(
        user.BatchAsGroups,
        ExportError,
        "part 'network' has no translation to ONNX: Unsupported attribute type",
        line_of("BatchAsGroups"),
        CURE_OPERATOR,
        inputs={"x": "float32[batch, 4, 5, 5]", "style": "float32[batch, 6]"},
        outputs={"y": "float32[batch, 4, 5, 5]"},
    ),
    Row(
        user.BoolIndex,
        AxisError,
        "tensor 'y' of part 'network' has the shape [",
    ),
    Row(
        user.BoolIndexReshaped,
        AxisError,
        "axis 'batch' was asked for as dynamic, the graph has the constant 2",
        "axis 0 of tensor 'y', part 'network'",
        "declare it as 2, or find what makes it constant",
    ),
    Row(
        user.Float64Leak,
        ExportError,
        "tensor 'y' of part 'network' is DOUBLE in the graph, not float32[batch, 8]",
    ),
]


def part(row: Row) -> Part:
    return part_of(row.module(), row.inputs, row.outputs, row.dims)


def check(row: Row, error: AnyportError) -> None:
    assert error.what.startswith(row.what)
    assert "\n" not in error.what
    if row.where is not None:
        assert error.where == row.where
    if row.do is not None:
        assert error.do == row.do
    assert not re.search(r"(^|[\s'(])/\w+/", str(error)), "no path of this machine"


@pytest.mark.parametrize("row", CAPTURE, ids=lambda row: row.module.__name__)
def test_refused_at_capture(row: Row) -> None:
    with pytest.raises(row.kind) as caught:
        capture(part(row))
    assert type(caught.value) is row.kind
    check(row, caught.value)


@pytest.mark.parametrize("row", CONVERT, ids=lambda row: row.module.__name__)
def test_refused_at_conversion(row: Row) -> None:
    captured = capture(part(row))
    with pytest.raises(row.kind) as caught:
        convert(captured, part(row))
    check(row, caught.value)


def test_training_mode_is_refused() -> None:
    with pytest.raises(RefusedModelError) as caught:
        capture(Part("network", user.TrainingMode().train(), signature()))
    assert caught.value.what == (
        "the model is in training mode: 3 of its modules, such as 'norm' (BatchNorm1d)"
    )
    assert caught.value.where == class_line("TrainingMode")


def test_the_line_is_found_twice_in_one_process() -> None:
    """Torch names each file once per process in its report: the second report needs another way."""
    row = specialised(user.ShapeAsTensor, "n", inputs=WIDE, outputs={"y": "float32[batch, n]"}, dims=TWO_DIMS)
    for _ in range(3):
        with pytest.raises(AxisError) as caught:
            capture(part(row))
        check(row, caught.value)


def test_a_branch_by_name_is_exported_once_it_is_said() -> None:
    for mode in ("fast", "slow"):
        captured = capture(part_of(user.ModeOption(), arguments={"mode": mode}))
        answer = captured.program.module()(torch.ones(2, 8))[0]
        assert torch.equal(answer, torch.full((2, 8), 2.0 if mode == "fast" else 3.0))


def test_an_assert_is_a_warning() -> None:
    captured = capture(part_of(user.Asserts()))
    assert captured.warnings == (
        f"the graph does not check what part 'network' asserts: {line_of('Asserts')}",
    )
    assert [node.op_type for node in convert(captured, part_of(user.Asserts())).model.graph] == ["Mul"]


@pytest.mark.parametrize(
    ("module", "inputs", "outputs"),
    [
        (user.ItemAsSlice(), X, {"y": "float32[batch, k]"}),
        (user.ItemAsFactor(), X, Y),
        (user.ToList(), X | {"n": "int64[3] 1..2"}, {"y": "float32[batch, 3]"}),
        (user.WritesItsInput(), X, Y),
        (user.WritesCopies(), X, Y),
        (user.DictOutput(), X, {"b": "float32[batch, 8]", "a": "float32[batch, 8]"}),
        (user.Broadcast(), X | {"y": "float32[1, 8]"}, {"z": "float32[batch, 8]"}),
        (user.CustomFunction(), X, Y),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_goes_through(module: nn.Module, inputs: dict[str, str], outputs: dict[str, str]) -> None:
    part = part_of(module, inputs, outputs)
    captured = capture(part)
    assert captured.warnings == ()
    assert convert(captured, part).model.graph.outputs[0].name == next(iter(outputs))


# ── sizes ───────────────────────────────────────────────────────────────────────────────────────────────
SIZES = ("1..2", "1..64", "2..3", "3..16", "64..1024:32", "32..64:32", "7..700:7", "8..9")


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_example_sizes_are_allowed_and_distinct(n_dims: int) -> None:
    for texts in itertools.product(SIZES, repeat=n_dims):
        dims = [dim(f"d{place}", text) for place, text in enumerate(texts)]
        sizes = example_sizes(dims)
        assert list(sizes) == [d.name for d in dims]
        assert all(d.holds(sizes[d.name]) for d in dims), (texts, sizes)
        assert all(sizes[d.name] > 1 for d in dims), "torch.export specialises size 1"
        if all(d.n_sizes > 2 for d in dims):
            assert len(set(sizes.values())) == n_dims, (texts, sizes)


@pytest.mark.parametrize("text", ["64..1024:32", "32..64:32", "8..64:8"])
def test_a_stepped_axis_divides_by_its_step(text: str) -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(3, 4, 8, stride=8)

        def forward(self, x: Tensor) -> Tensor:
            small: Tensor = self.down(x)
            return nn.functional.interpolate(small, scale_factor=8.0) + x[:, :1]

    notation = "float32[batch, {}, height, width]".format
    part = part_of(Halves(), {"x": notation(3)}, {"y": notation(4)}, BATCH | {"height": text, "width": text})
    captured = capture(part)
    assert all(part.signature.dims[name].holds(size) for name, size in captured.sizes.items())
    model = convert(captured, part).model
    assert str(model.graph.inputs[0].shape) == "[batch,3,height,width]"
    assert str(model.graph.outputs[0].shape) == "[batch,4,height,width]"


def test_two_axes_that_meet_must_be_one_axis() -> None:
    inputs = {"x": "float32[batch, 8]", "y": "float32[other, 8]"}
    part = part_of(user.Broadcast(), inputs, {"z": "float32[batch, 8]"}, BATCH | {"other": "1..16"})
    with pytest.raises(ExportError, match="must match the size of tensor b") as caught:
        capture(part)
    assert caught.value.where == line_of("Broadcast")


# ── quiet ───────────────────────────────────────────────────────────────────────────────────────────────
def test_quiet_says_nothing_and_puts_everything_back(capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.root.manager.disable

    def talk() -> None:
        with quiet():
            print("words")  # noqa: T201 -- that is what is tested
            warnings.warn("advice", stacklevel=1)
            logging.getLogger("torch").critical("advice")
            raise KeyError

    with pytest.raises(KeyError):
        talk()
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == level
    with pytest.raises(UserWarning, match="advice"):
        warnings.warn("advice", stacklevel=1)


def test_a_capture_leaves_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    model = user.CachedGrid().eval()
    before = dict(model.state_dict())
    with pytest.raises(ExportError):
        capture(part_of(user.RandnInForward()))
    assert dict(model.state_dict()) == before
    assert capfd.readouterr() == ("", "")
    assert torch.is_grad_enabled()


class Cached(nn.Module):
    """Attention over a past that may be empty: the mask is as long as past and new keys together."""

    def forward(self, keys: Tensor, past: Tensor, mask: Tensor) -> Tensor:
        """Return the sum of the keys that are not masked, for each row."""
        return (torch.cat([past, keys], 1) * mask[..., None]).sum(1)


@pytest.mark.parametrize("opset", [14, 20])
def test_an_input_axis_that_is_computed_stays_dynamic(opset: int, tmp_path: Path) -> None:
    part = part_of(
        Cached(),
        {
            "keys": "float32[batch, n, 2]",
            "past": "float32[batch, past, 2]",
            "mask": "float32[batch, past+n]",
        },
        {"y": "float32[batch, 2]"},
        {"batch": "1..8", "n": "1..8", "past": "0..8"},
    )
    path = tmp_path / "model.onnx"
    store(convert(capture(part), part, opset), path, StoreOptions())
    session = open_session(path)
    for n_past in (0, 1, 6):
        feeds = {
            "keys": np.ones((2, 3, 2), np.float32),
            "past": np.ones((2, n_past, 2), np.float32),
            "mask": np.ones((2, n_past + 3), np.float32),
        }
        assert session.run(feeds)["y"].tolist() == [[n_past + 3.0] * 2] * 2
    session.close()
