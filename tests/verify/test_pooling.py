"""Floors of small outputs are taken over several cases."""

from __future__ import annotations

import math

import pytest

from anyport.cases import Case, Constant, Normal, Stored, Uniform
from anyport.tensors import tensor
from anyport.verify import Floor
from anyport.verify.pooling import FloorPool, FloorSample, family_of


def sample(
    error: float, *, family: str = "a", n: int = 2, scale: float = 1.0, output: str = "y"
) -> FloorSample:
    return FloorSample(output, (family,), Floor(error, error / 2, "twin"), scale, n)


def test_a_lucky_case_is_held_against_the_quadratic_mean() -> None:
    samples = [sample(1.0), sample(1.0), sample(0.0)]
    floor = FloorPool(samples).widen(samples[2])
    assert floor.max_abs == pytest.approx(math.sqrt(2 / 3))
    assert floor.rms == pytest.approx(math.sqrt(2 / 3) / 2)
    assert floor.how == "twin; pooled over 3 cases, the output is small"


def test_an_unlucky_case_keeps_its_own_floor() -> None:
    samples = [sample(5.0), sample(1.0), sample(1.0)]
    assert FloorPool(samples).widen(samples[0]) == samples[0].floor


def test_large_outputs_keep_their_own_floor_and_lend_none() -> None:
    samples = [sample(5.0, n=1025), sample(1.0), sample(1.0), sample(1.0, n=1025)]
    pool = FloorPool(samples)
    assert all(pool.widen(one) == one.floor for one in samples)


def test_a_lonely_case_borrows_relative_to_its_scale() -> None:
    samples = [*(sample(1.0, scale=2.0, n=64) for _ in range(4)), sample(0.0, family="b", scale=0.5, n=64)]
    assert FloorPool(samples).widen(samples[-1]).max_abs == pytest.approx(0.25)


def test_the_scale_of_a_handful_of_numbers_may_be_luck_as_well() -> None:
    samples = [*(sample(1.0, scale=2.0) for _ in range(4)), sample(0.0, family="b", scale=0.5)]
    assert FloorPool(samples).widen(samples[-1]).max_abs == pytest.approx(1.0)


def test_other_outputs_and_infinite_floors_lend_nothing() -> None:
    lucky = sample(0.0)
    samples = [lucky, *(sample(9.0, output="z") for _ in range(3)), *(sample(math.inf) for _ in range(3))]
    pool = FloorPool(samples)
    assert pool.widen(lucky) == lucky.floor
    assert pool.widen(samples[-1]) == samples[-1].floor


def test_the_order_of_cases_changes_nothing() -> None:
    samples = [sample(10.0**-i) for i in range(12)]
    floors = [
        FloorPool(order).widen(samples[5]) for order in (samples, samples[::-1], samples[6:] + samples[:6])
    ]
    assert floors[0] == floors[1] == floors[2]


def test_a_family_is_how_float_inputs_are_filled() -> None:
    inputs = (tensor("x", "float32[4]"), tensor("t", "float32[] 0..1"), tensor("ids", "int64[4] 0..9"))

    def family(x: object, ids: object, t: object = None) -> tuple[str, ...]:
        fills = {"x": x, "ids": ids, "t": t or Uniform(1, 0, 1)}
        return family_of(Case("c", "random", {}, fills, {}), inputs)  # type: ignore[arg-type]

    usual = family(Normal(1), Uniform(1, 0, 9))
    assert usual == ("normal 1.0", "uniform 0 1")
    assert family(Normal(2), Constant(0)) == usual
    assert family(Normal(1, 4.0), Uniform(1, 0, 9)) != usual
    assert family(Constant(0), Uniform(1, 0, 9)) != family(Constant(1), Uniform(1, 0, 9))
    assert family(Stored("a"), Stored("b")) == family(Stored("c"), Stored("d"))
