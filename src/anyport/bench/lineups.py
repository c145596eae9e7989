"""In which orders candidates are opened: where weights lie in memory decides how fast they are read.

Of five copies of one graph with 64 MB of weights the last to be opened was 28 % faster than the first,
whatever the order of the runs. So everyone takes every place once (or, of many, an even share of them), and
the geometric mean over the line-ups has no such advantage in it, nor have rounds from which it was taken out.
"""

from __future__ import annotations

from statistics import geometric_mean
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from anyport.bench.pairing import PairedRatio

if TYPE_CHECKING:
    from collections.abc import Sequence

_T = TypeVar("_T")

MOST_LINE_UPS: Final = 6


def line_ups(contestants: Sequence[_T]) -> tuple[tuple[_T, ...], ...]:
    """Return the orders in which contestants are opened: rotations, evenly spread.

    >>> line_ups("abc")
    (('a', 'b', 'c'), ('b', 'c', 'a'), ('c', 'a', 'b'))
    """
    n = len(contestants)
    n_line_ups = min(n, MOST_LINE_UPS)
    starts = [place * n // n_line_ups for place in range(n_line_ups)]
    return tuple((*contestants[start:], *contestants[:start]) for start in starts)


def mean_ratio(found: Sequence[PairedRatio]) -> PairedRatio:
    """Return the geometric mean over line-ups of each number."""
    return PairedRatio(
        median=geometric_mean([ratio.median for ratio in found]),
        low=geometric_mean([ratio.low for ratio in found]),
        high=geometric_mean([ratio.high for ratio in found]),
        cpu_s=geometric_mean([ratio.cpu_s for ratio in found]),
    )


def balanced_rounds(found: Sequence[np.ndarray], n_orders: int) -> np.ndarray:
    """Return the ratios of all rounds of all line-ups, without what an order of opening does to them.

    What an order does is the mean over its openings; the luck of a single opening stays in the ratios.

    >>> balanced_rounds([np.array([1.0, 1.0]), np.array([4.0, 4.0])], 2)
    array([2., 2., 2., 2.])

    Args:
        found: Ratios, float64[round] of each line-up, whose orders are those of `line_ups`, again and again.
        n_orders: How many orders there are.

    Returns:
        float64[round of any line-up].
    """
    logs = [np.log(one) for one in found]
    middles = np.array([np.median(one) for one in logs])
    by_order = [float(middles[order::n_orders].mean()) for order in range(n_orders)]
    mean = sum(by_order) / n_orders
    balanced: np.ndarray = np.exp(
        np.concatenate([one - by_order[i % n_orders] + mean for i, one in enumerate(logs)])
    )
    return balanced
