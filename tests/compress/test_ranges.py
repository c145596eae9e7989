from __future__ import annotations

import numpy as np
import pytest

from anyport.compress.methods import Entropy, MinMax, Percentile
from anyport.compress.ranges import N_BINS, Histogram, Range, chosen_range, entropy_range


def histogram(values: np.ndarray) -> Histogram:
    extremes = Range(float(values.min()), float(values.max()))
    return Histogram(extremes, np.histogram(values, bins=N_BINS)[0].astype(np.float64))


@pytest.fixture(scope="module")
def heavy_tailed() -> np.ndarray:
    values = np.random.default_rng(0).normal(0, 1, 200_000)
    values[0], values[1] = 60.0, -20.0
    return values


def test_min_max_is_what_was_seen(heavy_tailed: np.ndarray) -> None:
    assert chosen_range(histogram(heavy_tailed), MinMax()) == Range(-20.0, 60.0)


def test_a_percentile_cuts_the_tails(heavy_tailed: np.ndarray) -> None:
    found = chosen_range(histogram(heavy_tailed), Percentile(99.9))
    inside = np.mean((heavy_tailed >= found.low) & (heavy_tailed <= found.high))
    assert 0.999 <= inside < 0.9999
    assert found.high < 5


def test_all_of_it_is_min_max(heavy_tailed: np.ndarray) -> None:
    found = chosen_range(histogram(heavy_tailed), Percentile(100))
    assert (found.low, found.high) == pytest.approx((-20.0, 60.0))


def test_entropy_drops_lonely_values_and_keeps_what_is_evenly_spread(heavy_tailed: np.ndarray) -> None:
    found = chosen_range(histogram(heavy_tailed), Entropy())
    assert 2 < found.high < 20
    assert found.low == pytest.approx(-found.high)
    even = entropy_range(histogram(np.linspace(0, 10, 100_000)))
    assert even.high == pytest.approx(10, rel=0.01)
    assert even.low == 0


def test_a_constant_has_its_extremes() -> None:
    found = Histogram(Range(2.0, 2.0), np.zeros(N_BINS))
    for rule in (MinMax(), Percentile(99), Entropy()):
        assert chosen_range(found, rule) == Range(2.0, 2.0)


def test_ranges_are_joined() -> None:
    assert Range(-1, 2).joined(Range(0, 5)) == Range(-1, 5)
