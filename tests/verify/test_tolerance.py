"""The numbers that decide, and the gates of a user."""

from __future__ import annotations

import math

import pytest

from anyport.errors import UsageError
from anyport.verify import MAX_ABS_MULTIPLE, RMS_MULTIPLE, Gates
from anyport.verify.tolerance import FLOAT32_EPSILON, MIN_INPUT_POWER, MIN_OUTPUT_POWER, clear_margin


def test_the_multiples_are_above_clean_exports_and_not_above_eight() -> None:
    assert 2.2 < MAX_ABS_MULTIPLE <= 8
    assert 1.33 < RMS_MULTIPLE <= MAX_ABS_MULTIPLE


def test_an_input_that_is_ignored_would_be_seen() -> None:
    assert MIN_OUTPUT_POWER > MIN_INPUT_POWER > MAX_ABS_MULTIPLE


@pytest.mark.parametrize("limit", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["rtol", "atol", "mse", "l2"])
def test_gates_that_are_no_limits(name: str, limit: float) -> None:
    with pytest.raises(UsageError, match=f"gate {name} = {limit} is no limit"):
        Gates(**{name: limit})


def test_a_gate_of_zero_is_a_gate() -> None:
    assert Gates(atol=0.0).are_set
    assert not Gates().are_set


def test_a_clear_margin_is_sixteen_floors_of_a_random_walk() -> None:
    assert clear_margin(1) == 16 * FLOAT32_EPSILON
    assert clear_margin(400) == pytest.approx(20 * clear_margin(1))
