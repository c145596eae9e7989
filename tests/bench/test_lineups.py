from __future__ import annotations

import pytest

from anyport.bench.lineups import MOST_LINE_UPS, line_ups, mean_ratio
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
