"""The range of an activation, from what samples showed of it: extremes, or a histogram between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.compress.methods import MinMax, Percentile

if TYPE_CHECKING:
    from anyport.compress.methods import Ranges

N_BINS: Final = 2048
_N_LEVELS: Final = 128  # of one sign: what 8 bits tell apart
_PERCENT: Final = 100.0


@dataclass(frozen=True, slots=True)
class Range:
    """The least and the largest value that 8 bits must hold."""

    low: float
    high: float

    def joined(self, other: Range) -> Range:
        """Return the range that holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often values fell into each of equally wide bins.

    Attributes:
        extremes: Where the first bin begins and the last ends.
        counts: float64[bins].
    """

    extremes: Range
    counts: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """float64[bins + 1]."""
        return np.linspace(self.extremes.low, self.extremes.high, len(self.counts) + 1)


def chosen_range(found: Histogram, ranges: Ranges) -> Range:
    """Return the range that a rule takes of a histogram."""
    if isinstance(ranges, MinMax) or found.counts.sum() == 0:
        return found.extremes
    return percentile_range(found, ranges) if isinstance(ranges, Percentile) else entropy_range(found)


def percentile_range(found: Histogram, ranges: Percentile) -> Range:
    """Cut the same share off both ends; to the edge of a bin, outwards.

    >>> found = Histogram(Range(0.0, 10.0), np.array([90.0, 9.0, 0.0, 0.0, 1.0]))
    >>> percentile_range(found, Percentile(98))
    Range(low=0.0, high=4.0)
    """
    share = np.cumsum(found.counts) / found.counts.sum()
    cut = (1 - ranges.percent / _PERCENT) / 2
    slack = 1e-12  # a cumulative sum of exact counts is not exact
    first = int(np.searchsorted(share, cut + slack, side="right"))
    last = int(np.searchsorted(share, 1 - cut - slack, side="left"))
    edges = found.edges
    return Range(float(edges[first]), float(edges[min(last, len(found.counts) - 1) + 1]))


def entropy_range(found: Histogram) -> Range:
    """Return the range that loses the least information (Migacz, "8-bit Inference with TensorRT", GTC 2017).

    For each threshold the values beyond it are counted as the threshold, the rest is told apart in 128 levels
    of one sign; the divergence of Kullback and Leibler between the two says what is lost.
    """
    limit = max(abs(found.extremes.low), abs(found.extremes.high))
    centres = np.abs((found.edges[:-1] + found.edges[1:]) / 2)
    counts, edges = np.histogram(centres, bins=N_BINS, range=(0.0, limit), weights=found.counts)
    losses = [_divergence(counts, n_kept) for n_kept in range(_N_LEVELS, N_BINS + 1)]
    threshold = float(edges[_N_LEVELS + int(np.argmin(losses))])
    return Range(max(found.extremes.low, -threshold), min(found.extremes.high, threshold))


def _divergence(counts: np.ndarray, n_kept: int) -> float:
    """Return the loss of keeping the first bins: infinite if nothing is left of them."""
    kept = counts[:n_kept]
    true = kept.copy()
    true[-1] += counts[n_kept:].sum()
    starts = np.arange(_N_LEVELS) * n_kept // _N_LEVELS
    filled = kept > 0
    sums = np.add.reduceat(kept, starts)
    n_filled = np.add.reduceat(filled.astype(np.float64), starts)
    means = np.divide(sums, n_filled, out=np.zeros_like(sums), where=n_filled > 0)
    sizes = np.diff(np.append(starts, n_kept))
    model = np.where(filled, np.repeat(means, sizes), 0.0)
    total, model_total = true.sum(), model.sum()
    if total == 0 or model_total == 0:
        return float("inf")
    seen = true > 0
    # a bin that only the clipped values fill is not in the model: it gets the smallest probability
    p, q = true[seen] / total, np.maximum(model[seen] / model_total, 1e-12)
    return float(np.sum(p * np.log(p / q)))
