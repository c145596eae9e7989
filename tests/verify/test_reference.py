"""The floor: how exact a reference is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anyport.tensors import tensor
from anyport.verify import Floor, SessionReference, measure_floor, perturbation_floor
from anyport.verify.reference import root_mean_square
from tests.verify.fakes import INPUTS, FunctionSession, f16, f32, f64, good, plan

SPACING = 2.0**-23


@pytest.mark.parametrize(
    ("single", "double", "max_abs", "rms"),
    [
        ([1.0, -4.0], [1.0, -4.0], 4 * SPACING, math.sqrt(8.5) * SPACING),  # equal: the spacing of the scale
        ([1.0, 2.0], [1.0, 2.001], 0.001, 0.001 / math.sqrt(2)),  # the measured error is larger
        ([0.0, 0.0], [0.0, 0.0], 2.0**-126, 2.0**-126),  # nothing at all: the least normal number
        ([0.0], [6e-55], 2.0**-126, 2.0**-126),  # a vanished output
        ([], [], 2.0**-126, 2.0**-126),
        ([np.nan, 1.0], [np.nan, 1.0], SPACING, SPACING),  # NaN in both does not count
        ([np.inf, 1.0], [1e300, 1.0], SPACING, SPACING),  # no float32 number holds 1e300
    ],
)
def test_floor(single: list[float], double: list[float], max_abs: float, rms: float) -> None:
    floor = measure_floor(f32(single), f64(double), "twin")
    assert floor.how == "twin"
    assert floor.max_abs == pytest.approx(max_abs, rel=1e-3)
    assert floor.rms == pytest.approx(rms, rel=1e-3)


def test_floor_where_float32_overflows_is_infinite() -> None:
    floor = measure_floor(f32([np.inf, 1.0]), f64([1e10, 1.0]), "twin")
    assert not floor.is_finite
    assert floor.how == "twin; float32 itself overflows here"


@pytest.mark.parametrize("power", [-20, -1, 1, 7, 60])
def test_floor_scales_with_the_output(power: int) -> None:
    single, double = f32([0.5, -3.0, 2.0]), f64([0.5, -3.0000004, 2.0])
    floor = measure_floor(single, double, "twin")
    scaled = measure_floor(single * np.float32(2.0**power), double * 2.0**power, "twin")
    assert (scaled.max_abs, scaled.rms) == (floor.max_abs * 2.0**power, floor.rms * 2.0**power)


def test_floor_of_float16_is_its_own_spacing() -> None:
    assert measure_floor(f16([2.0]), f64([2.0]), "twin").max_abs == 2 * 2.0**-10


@pytest.mark.parametrize("scale", [1e-200, 1e-38, 1.0, 1e200])
def test_root_mean_square_neither_vanishes_nor_overflows(scale: float) -> None:
    assert root_mean_square(np.array([3.0, 4.0]) * scale) == pytest.approx(scale * math.sqrt(12.5))


def test_perturbation_floor_sees_an_unstable_reference() -> None:
    spec = tensor("x", "float32[3]")
    feeds = {"x": f32([1.0, 2.0, 3.0])}
    calm = perturbation_floor(lambda feeds: {"y": feeds["x"]}, feeds, [spec])["y"]
    wild = perturbation_floor(lambda feeds: {"y": 1000 * (feeds["x"] - 1)}, feeds, [spec])["y"]
    assert calm.max_abs <= 2 * 3 * SPACING
    assert wild.max_abs >= 1000 * SPACING
    assert wild.how == "the reference's reaction to input noise of 2^-23"


def test_perturbation_floor_is_the_same_every_time() -> None:
    spec = tensor("x", "float32[1000]")
    feeds = {"x": np.linspace(-1, 1, 1000, dtype=np.float32)}
    floors = [perturbation_floor(lambda feeds: {"y": np.sin(feeds["x"])}, feeds, [spec]) for _ in range(2)]
    assert floors[0] == floors[1]


def test_perturbation_floor_without_float_inputs_says_so() -> None:
    spec = tensor("ids", "int64[2] 0..9")
    run = lambda feeds: {"y": f32([1.0, -2.0]), "n": feeds["ids"]}  # noqa: E731
    floors = perturbation_floor(run, {"ids": np.array([1, 2])}, [spec])
    how = "8 spacings of float32 (there is no float input to disturb)"
    assert floors == {"y": Floor(16 * SPACING, floors["y"].rms, how)}


def test_a_session_as_reference() -> None:
    session = FunctionSession(good)
    case = plan().cases[0]
    answer = SessionReference(session).answer(case)
    np.testing.assert_array_equal(answer.outputs["logits"], good(case.arrays(INPUTS))["logits"])
    assert set(answer.floors) == {"logits"}
