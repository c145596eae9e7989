"""PyTorch as a session and as the reference: checked shapes, errors with the user's line, honest floors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyport.cases import Case, Constant, Normal
from anyport.errors import AnyportError, InputError, SourceError
from anyport.source import TorchReference, TorchSession
from tests.source.parts import X, Y, part_of

if TYPE_CHECKING:
    from collections.abc import Mapping

ONES = {"x": np.ones((2, 8), np.float32)}


class Doubles(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": x * 2, "label": x.argmax(1)}


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, ::2]


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(3, -1)  # LINE


class Tuples(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.long()


class Writes(nn.Module):
    """Without a float64 twin: it writes into a tensor that is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.zeros(8)

    def forward(self, x: Tensor) -> Tensor:
        self.table.copy_(x[0])
        return torch.tanh(x + self.table)


class ChangesItsInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x[:, 0] = 7.0
        return x * 2


class Overflows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 1e30) * 1e30 * 1e-30


def case(value: float = 1.0, batch: int = 2) -> Case:
    return Case("case", "random", {"batch": batch}, {"x": Constant(value)}, {})


def test_a_session_answers_by_declared_name() -> None:
    part = part_of(Doubles(), outputs={"label": "int64[batch]", "y": "float32[batch, 8]"})
    session = TorchSession(part)
    answer = session.run(ONES)
    session.close()
    assert list(answer) == ["label", "y"]
    assert np.array_equal(answer["y"], ONES["x"] * 2)
    assert (session.inputs, session.outputs) == (part.signature.inputs, part.signature.outputs)


def test_an_input_that_the_module_writes_to_stays_the_callers() -> None:
    feeds = {"x": np.ones((2, 8), np.float32)}
    TorchSession(part_of(ChangesItsInput())).run(feeds)
    assert np.array_equal(feeds["x"], np.ones((2, 8)))


def test_a_computed_axis_is_held() -> None:
    dims = {"batch": "1..4", "width": "2..16:2"}
    inputs, outputs = {"x": "float32[batch, width]"}, {"y": "float32[batch, width//2]"}
    session = TorchSession(part_of(Halves(), inputs, outputs, dims))
    assert session.run({"x": np.ones((3, 6), np.float32)})["y"].shape == (3, 3)


FAILS: list[tuple[str, nn.Module, dict[str, str], Mapping[str, np.ndarray], type[AnyportError], str]] = [
    (
        "PyTorch itself fails",
        Fails(),
        Y,
        {"x": np.ones((2, 8), np.float32)},
        SourceError,
        (
            "PyTorch itself fails on batch=2: shape '[3, -1]' is invalid for input of size 16\n"
            "  where: test_running.py:"
        ),
    ),
    ("at the user's line", Fails(), Y, ONES, SourceError, ": return x.reshape(3, -1)  # LINE\n"),
    (
        "what to do",
        Fails(),
        Y,
        ONES,
        SourceError,
        "  do:    declare the sizes the model takes under [dims], the values under [inputs]",
    ),
    (
        "another type",
        Whole(),
        Y,
        ONES,
        SourceError,
        "output 'y' is int64[2, 8], declared as float32[batch, 8]\n  do:    correct it under [outputs]",
    ),
    (
        "fewer axes",
        Doubles(),
        {"label": "int64[batch, 8]"},
        ONES,
        SourceError,
        "output 'label' is int64[2], declared as int64[batch, 8]",
    ),
    (
        "another fixed size",
        Halves(),
        Y,
        ONES,
        SourceError,
        "output 'y' has size 4 at axis 1, declared as 8 = 8\n  where: batch=2\n",
    ),
    (
        "another named size",
        Doubles(),
        {"y": "float32[8, batch]"},
        ONES,
        SourceError,
        "output 'y' has size 2 at axis 0, declared as 8 = 8",
    ),
    (
        "another computed size",
        Doubles(),
        {"y": "float32[batch*2, 8]"},
        ONES,
        SourceError,
        "output 'y' has size 2 at axis 0, declared as batch*2 = 4",
    ),
    (
        "too few outputs",
        Tuples(),
        Y,
        ONES,
        SourceError,
        "the model returns 2 tensors, 1 outputs are declared: y",
    ),
    (
        "a wrong feed",
        Doubles(),
        Y,
        {"x": np.ones((2, 7), np.float32)},
        InputError,
        "input 'x' has size 7 where the model takes 8",
    ),
    (
        "a size out of range",
        Doubles(),
        Y,
        {"x": np.ones((17, 8), np.float32)},
        InputError,
        "input 'x' has batch = 17, the model takes 1..16",
    ),
    ("a missing feed", Doubles(), Y, {}, InputError, "input 'x' is missing: float32[batch, 8]"),
]


@pytest.mark.parametrize(
    ("module", "outputs", "feeds", "kind", "text"), [row[1:] for row in FAILS], ids=[row[0] for row in FAILS]
)
def test_what_does_not_fit(
    module: nn.Module,
    outputs: dict[str, str],
    feeds: Mapping[str, np.ndarray],
    kind: type[AnyportError],
    text: str,
) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        TorchSession(part_of(module, outputs=outputs)).run(feeds)


def test_the_reference_is_float64_rounded_with_its_floor() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8))
    part = part_of(model, {"input": X["x"]}, Y)
    given = Case("case", "random", {"batch": 3}, {"input": Normal(1)}, {})
    feeds = given.arrays(part.signature.inputs)
    answer = TorchReference(part).answer(given)
    exact = model.double()(torch.from_numpy(feeds["input"]).double()).detach().numpy()
    single = model.float()(torch.from_numpy(feeds["input"])).detach().numpy()
    assert np.array_equal(answer.outputs["y"], exact.astype(np.float32))
    floor = answer.floors["y"]
    spacing = 2.0**-23 * np.abs(exact).max()
    assert floor.max_abs == pytest.approx(max(np.abs(single - exact).max(), spacing), rel=1e-6)
    assert 0 < floor.rms <= floor.max_abs
    assert floor.how == "PyTorch float32 against float64"


def test_whole_numbers_have_no_floor() -> None:
    part = part_of(Doubles(), outputs={"y": "float32[batch, 8]", "label": "int64[batch]"})
    answer = TorchReference(part).answer(case())
    assert set(answer.floors) == {"y"}
    assert answer.outputs["label"].dtype == np.int64


def test_without_a_twin_the_floor_says_so() -> None:
    answer = TorchReference(part_of(Writes())).answer(case(0.25))
    assert answer.outputs["y"][0, 0] == pytest.approx(np.tanh(0.5), rel=1e-6)
    how = answer.floors["y"].how
    assert how.startswith("the reference's reaction to input noise of 2^-23; no float64 twin: ")
    assert how.endswith("writes into a torch.float32 tensor")
    assert 1e-8 < answer.floors["y"].max_abs < 1e-6


def test_float32_overflow_is_no_floor() -> None:
    answer = TorchReference(part_of(Overflows())).answer(case())
    assert not answer.floors["y"].is_finite
    assert np.isfinite(answer.outputs["y"]).all()
