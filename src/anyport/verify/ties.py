"""Whole-number outputs that are the place of a score's largest values: two answers may be equally right.

``argmax`` of two scores that are closer than rounding has no single right answer. An output is taken for the
choice of a score only if it is one in every case of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """A whole-number output holds the places of the largest values of a score, along one axis.

    Attributes:
        choice: The whole-number output.
        score: The float output.
        axis: The axis of the score along which the choice was made.
        keeps_axis: Whether the choice kept that axis: of length 1 (argmax) or k (top-k, last axis, sorted).
    """

    choice: str
    score: str
    axis: int
    keeps_axis: bool

    def places(self, array: np.ndarray) -> np.ndarray:
        """Return the choice with the score's number of axes."""
        return array if self.keeps_axis else np.expand_dims(array, self.axis)

    def holds(self, outputs: Mapping[str, np.ndarray]) -> bool:
        """Say whether the reference's choice is one of the best, position by position."""
        score, places = outputs[self.score], self.places(outputs[self.choice])
        if not _fits(score, places, self.axis):
            return False
        if not np.isfinite(score).all():
            return True  # NaN has no order: this case says nothing
        k = places.shape[self.axis]
        best = np.flip(np.sort(score, axis=self.axis), axis=self.axis)
        best = np.take(best, range(k), axis=self.axis)
        chosen = np.take_along_axis(score, places.astype(np.int64), axis=self.axis)
        return bool(np.array_equal(chosen, best)) and _are_distinct(places, self.axis)


def possible_links(outputs: Mapping[str, np.ndarray]) -> frozenset[Link]:
    """Return every link that the first answer allows."""
    choices = [name for name, array in outputs.items() if np.issubdtype(array.dtype, np.integer)]
    scores = [name for name, array in outputs.items() if np.issubdtype(array.dtype, np.floating)]
    links = [
        Link(choice, score, axis, keeps)
        for choice in choices
        for score in scores
        for axis in range(outputs[score].ndim)
        for keeps in (True, False)
        if outputs[choice].ndim == outputs[score].ndim - (not keeps)
    ]
    return surviving_links(links, outputs)


def surviving_links(links: Iterable[Link], outputs: Mapping[str, np.ndarray]) -> frozenset[Link]:
    """Return the links that hold in this answer as well."""
    return frozenset(link for link in links if link.holds(outputs))


def largest_margin(link: Link, expected: Mapping[str, np.ndarray], got: np.ndarray) -> float | None:
    """Return how far apart, in the reference's score, the two choices are where they differ most.

    Returns:
        ``None`` if the candidate's choice is no choice: beyond the axis, or the same place twice.
    """
    score, places = expected[link.score], link.places(expected[link.choice])
    mine = link.places(got)
    if not _fits(score, mine, link.axis) or not _are_distinct(mine, link.axis):
        return None
    right = np.take_along_axis(score, places.astype(np.int64), axis=link.axis).astype(np.float64)
    other = np.take_along_axis(score, mine.astype(np.int64), axis=link.axis).astype(np.float64)
    different = places != mine
    margins = np.abs(right[different] - other[different])
    return float(np.max(margins, initial=0.0)) if np.isfinite(margins).all() else None


def _fits(score: np.ndarray, places: np.ndarray, axis: int) -> bool:
    if places.ndim != score.ndim or score.size == 0 or places.size == 0:
        return False
    k, n = places.shape[axis], score.shape[axis]
    # k > 1 is a top-k, which is looked for along the last axis only
    if k > n or (k > 1 and axis != score.ndim - 1):
        return False
    others = [i for i in range(score.ndim) if i != axis]
    same = all(places.shape[i] == score.shape[i] for i in others)
    return same and int(places.min()) >= 0 and int(places.max()) < n


def _are_distinct(places: np.ndarray, axis: int) -> bool:
    ordered = np.sort(places, axis=axis)
    return not bool((np.diff(ordered, axis=axis) == 0).any())
