from __future__ import annotations

import numpy as np
import pytest

from anyport.bench.lineups import MOST_LINE_UPS, balanced_rounds, line_ups, mean_ratio
from anyport.bench.pairing import PairedRatio


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 12])
def test_everyone_is_opened_at_every_place_or_evenly_spread(n: int) -> None:
    names = [str(i) for i in range(n)]
    orders = line_ups(names)
    assert len(orders) == min(n, MOST_LINE_UPS)
    assert all(sorted(order, key=names.index) == names for order in orders)
    for one in names:
        places = sorted(order.index(one) for order in orders)
        assert len(set(places)) == len(orders)
        assert abs(sum(places) / len(places) - (n - 1) / 2) <= 1.0


def test_an_advantage_of_the_place_is_not_in_the_mean() -> None:
    by_place = (1.0, 1.1, 1.3)
    found: dict[str, list[PairedRatio]] = {name: [] for name in "abc"}
    for order in line_ups("abc"):
        speed = dict(zip(order, by_place, strict=True))
        for name in order:
            ratio = speed[name] / speed["a"]
            found[name].append(PairedRatio(ratio, 0.9 * ratio, 1.1 * ratio, 1 / speed[name]))
    for ratios in found.values():
        mean = mean_ratio(ratios)
        assert mean.median == pytest.approx(1.0)
        assert (mean.low, mean.high) == (pytest.approx(0.9), pytest.approx(1.1))
        assert mean.cpu_s == pytest.approx((1.0 * 1.1 * 1.3) ** (-1 / 3))


def test_an_advantage_of_the_place_is_not_in_the_rounds_and_the_luck_of_an_opening_is() -> None:
    place, luck = np.array([1.0, 1.1, 1.3]), np.array([1.0, 1.05])
    found = [np.full(4, place[i % 3] * luck[i // 3]) for i in range(6)]
    rounds = balanced_rounds(found, 3)
    mean = np.exp(np.log(place).mean())
    assert sorted(set(np.round(rounds / mean, 12))) == [1.0, 1.05]
    assert rounds.shape == (24,)


def test_rounds_of_one_opening_stay_as_they_are() -> None:
    rounds = np.array([0.5, 1.0, 3.0])
    assert balanced_rounds([rounds], 1) == pytest.approx(rounds)
