"""What one comparison of one output on one case found: the numbers, and the judgement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anyport.verify.reference import root_mean_square
from anyport.verify.tolerance import MAX_ABS_MULTIPLE, MIN_RMS_ELEMENTS, RMS_MULTIPLE, TINY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.verify.reference import Floor


@dataclass(frozen=True, slots=True)
class Numbers:
    """The distance of a candidate's output from the reference's, over the finite positions.

    Attributes:
        n_elements: How many elements the output has.
        n_different: How many of them differ at all.
        max_abs: Largest absolute error.
        index: Where it is.
        expected: The reference's value there.
        got: The candidate's value there.
        max_rel: Largest error relative to its reference value, of values above the floor; infinite never.
        mse: Mean squared error.
        rms: Its root.
        l1: Mean absolute error times the number of elements: the sum of absolute errors.
        l2: Euclidean length of the error.
        scale_rms: RMS of the reference.
        cosine_min: Least cosine between rows (along the last axis) of both; ``None`` if no row is above the
            floor.
        top1_agreement: Share of rows with the same largest element, of outputs ``[row, class]``; or ``None``.
    """

    n_elements: int
    n_different: int
    max_abs: float
    index: tuple[int, ...]
    expected: float
    got: float
    max_rel: float
    mse: float
    rms: float
    l1: float
    l2: float
    scale_rms: float
    cosine_min: float | None
    top1_agreement: float | None


@dataclass(frozen=True, slots=True)
class Finding:
    """The judgement on one output of one case.

    Attributes:
        case: The name of the case.
        case_kind: ``typical``, ``boundary`` or ``random``.
        case_number: From 1.
        n_cases: How many cases were run.
        sizes: The size of each named axis.
        output: The name of the output.
        numbers: The distances; ``None`` where nothing could be compared, and ``reason`` says why.
        floor: What it was held against; ``None`` for whole numbers, and where nothing could be compared.
        passed: The judgement.
        reason: Why it failed, or why it passed although something differs; empty for a plain pass.
    """

    case: str
    case_kind: str
    case_number: int
    n_cases: int
    sizes: Mapping[str, int]
    output: str
    numbers: Numbers | None
    floor: Floor | None
    passed: bool
    reason: str

    @property
    def ratio_max(self) -> float:
        """The largest error in floors."""
        return _ratio(self.numbers.max_abs, self.floor.max_abs) if self.numbers and self.floor else 0.0

    @property
    def ratio_rms(self) -> float:
        """The RMS error in floors."""
        return _ratio(self.numbers.rms, self.floor.rms) if self.numbers and self.floor else 0.0

    @property
    def used(self) -> float:
        """How much of what is allowed was used: above 1 the floor rule fails.

        What cannot be compared used everything; wrong whole numbers rank behind the floats they come from.
        """
        if self.numbers is None:
            return 0.0 if self.passed else math.inf
        if self.floor is None:
            return 0.0 if self.passed else 1.0
        by_rms = self.ratio_rms / RMS_MULTIPLE if self.numbers.n_elements >= MIN_RMS_ELEMENTS else 0.0
        return max(self.ratio_max / MAX_ABS_MULTIPLE, by_rms)

    @property
    def where(self) -> str:
        """The case, its sizes and the index, as a message says them."""
        sizes = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        text = f"case {self.case_number} of {self.n_cases} '{self.case}'" + (f" ({sizes})" if sizes else "")
        differs = self.numbers is not None and self.numbers.n_different > 0
        return f"{text}, index {index_text(self.numbers.index)}" if self.numbers and differs else text

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict; numbers that JSON cannot hold become words."""
        numbers = self.numbers
        return {
            "case": self.case,
            "case_kind": self.case_kind,
            "sizes": dict(self.sizes),
            "output": self.output,
            "passed": self.passed,
            "reason": self.reason,
            "ratio_max": json_number(self.ratio_max),
            "ratio_rms": json_number(self.ratio_rms),
            "floor": None if self.floor is None else _floor_json(self.floor),
            "numbers": None if numbers is None else _numbers_json(numbers),
        }


def _ratio(error: float, floor: float) -> float:
    return error / floor if math.isfinite(floor) and floor > 0 else 0.0


def _floor_json(floor: Floor) -> dict[str, Any]:
    return {"max_abs": json_number(floor.max_abs), "rms": json_number(floor.rms), "how": floor.how}


def _numbers_json(numbers: Numbers) -> dict[str, Any]:
    values = {name: getattr(numbers, name) for name in numbers.__slots__}
    plain = {
        name: json_number(value) if isinstance(value, float) else value for name, value in values.items()
    }
    return plain | {"index": list(numbers.index)}


def json_number(value: float) -> float | str:
    """Return a number that JSON can hold, or the word for it: ``inf``, ``nan``."""
    return value if math.isfinite(value) else str(value)


def index_text(index: tuple[int, ...]) -> str:
    """Return ``(0, 417)``, also for one axis: ``(3)``."""
    return f"({', '.join(str(i) for i in index)})"


def measure_distance(expected: np.ndarray, got: np.ndarray, floor: Floor | None) -> Numbers:
    """Measure how far two arrays of one shape are apart; NaN and infinite positions are left out.

    Args:
        expected: The reference's output.
        got: The candidate's, with NaN and infinity at the same positions.
        floor: Values below it do not count as scale for the relative error and the cosine.
    """
    exact, mine = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.where(np.isfinite(exact), mine - exact, 0.0)
    exact = np.where(np.isfinite(exact), exact, 0.0)
    least = floor.max_abs if floor is not None and floor.is_finite else TINY
    size = np.abs(error)
    flat = int(np.argmax(size)) if size.size else 0
    rms = root_mean_square(error)
    return Numbers(
        n_elements=exact.size,
        n_different=int(np.count_nonzero(error)),
        max_abs=float(size.flat[flat]) if size.size else 0.0,
        index=tuple(int(i) for i in np.unravel_index(flat, size.shape)) if size.size else (),
        expected=float(exact.flat[flat]) if size.size else 0.0,
        got=float(exact.flat[flat] + error.flat[flat]) if size.size else 0.0,
        max_rel=_largest_relative(size, np.abs(exact), least),
        mse=rms * rms,
        rms=rms,
        l1=float(size.sum()),
        l2=rms * math.sqrt(size.size),
        scale_rms=root_mean_square(exact),
        cosine_min=_least_cosine(exact, exact + error, least),
        top1_agreement=_top1_agreement(exact, exact + error),
    )


def _largest_relative(error: np.ndarray, scale: np.ndarray, least: float) -> float:
    above = scale > least
    return float(np.max(error[above] / scale[above], initial=0.0))


def _least_cosine(exact: np.ndarray, mine: np.ndarray, least: float) -> float | None:
    if exact.size == 0:
        return None
    n = exact.shape[-1] if exact.ndim else 1
    rows, others = exact.reshape(-1, n), mine.reshape(-1, n)
    # rows are scaled by their own largest element, so that no square vanishes or overflows
    largest, theirs = np.max(np.abs(rows), axis=1), np.max(np.abs(others), axis=1)
    alive = (largest > least) & (theirs > 0)
    if not alive.any():
        return None
    rows, others = rows[alive] / largest[alive, None], others[alive] / theirs[alive, None]
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    return float(np.min(np.sum(rows * others, axis=1) / lengths))


def _top1_agreement(exact: np.ndarray, mine: np.ndarray) -> float | None:
    if exact.ndim != 2 or exact.shape[1] < 2 or exact.shape[0] == 0:  # noqa: PLR2004  (rows of classes)
        return None
    return float(np.mean(np.argmax(exact, axis=1) == np.argmax(mine, axis=1)))
