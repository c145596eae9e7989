"""How far a lossy variant may be from the exact one: one metric for each output, and its limit.

An INT8 answer is not the exact answer, and it is another one on a processor with other instructions. So it is
not held against rounding, but against what the output is for: the choice of a classifier, the direction of an
embedding, the look of a picture. A metric turns two answers to one sample into a *loss*, 0 where they are
equally good; losses are averaged over samples. ``docs/verify.md`` gives the reason of each limit.

Every metric has a ``word`` (its name in files and options), ``about`` (its name in messages), ``least`` (the
least value that passes), ``worst_multiple`` (how many times the allowed loss a single sample may lose) and:

``loss(reference, candidate, counted)``
    compares two answers of one shape to one sample; ``counted`` says, over their first axes, where there is
    no padding. 0 or more; NaN where nothing counts.
``value(loss)`` and ``loss_at(value)``
    what files and messages show for a mean loss (larger is better), and back.
``show(value)``
    the value with its unit.
``fitted(low, high)``
    the metric for answers that lie between these.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, Self

import numpy as np

from anyport.errors import UsageError, did_you_mean
from anyport.verify.tolerance import FLOAT32_EPSILON, MAX_ABS_MULTIPLE, TINY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.tensors import TensorSpec

# a metric may be set laxer than its default, up to this multiple of the default's loss, and no further
LAXEST_MULTIPLE: Final = 4.0
_MOST_DB: Final = 100.0  # equal pictures have no finite one
_LEAST_LOSS: Final = 10.0 ** (-_MOST_DB / 10)
_LEAST_VECTOR: Final = 3  # two numbers have hardly a direction, one has none
_PICTURE_AXES: Final = 4  # batch, channels, height, width
_PICTURE_CHANNELS: Final = frozenset({1, 3, 4})
_SCORES: Final = re.compile(r"logit|score|prob|class|label", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TopOneAgreement:
    """The share of answers with the same first choice; for whole-number outputs, of equal numbers.

    Where the reference's best scores are closer than rounding, each of them is right. Of equal scores of the
    candidate the first is its choice, as ``argmax`` has it everywhere.

    >>> metric = TopOneAgreement()
    >>> metric.loss(np.float32([[1, 3, 2]]), np.float32([[1, 2, 4]]), None)
    1.0

    Attributes:
        least: The least share.
        axis: Along which a choice is made.
    """

    least: float = 0.95
    axis: int = -1
    word: ClassVar[str] = "top-1"
    about: ClassVar[str] = "top-1 agreement"
    worst_multiple: ClassVar[float | None] = None  # one choice is right or wrong

    def loss(self, reference: np.ndarray, candidate: np.ndarray, counted: np.ndarray | None) -> float:
        """Return the share of other choices."""
        if reference.size == 0:
            return math.nan
        if not np.issubdtype(reference.dtype, np.floating):
            return _mean_counted(reference != candidate, counted)
        choice = np.expand_dims(np.argmax(candidate, axis=self.axis), self.axis)
        chosen = np.take_along_axis(reference, choice, axis=self.axis)
        scale = np.max(
            np.abs(reference), axis=self.axis, keepdims=True, where=np.isfinite(reference), initial=0
        )
        best = np.max(reference, axis=self.axis, keepdims=True)
        tie = np.float64(MAX_ABS_MULTIPLE * FLOAT32_EPSILON) * scale
        is_wrong = np.squeeze(chosen.astype(np.float64) < best - tie, axis=self.axis)
        return _mean_counted(is_wrong, counted)

    def value(self, loss: float) -> float:
        """Return the share of equal choices."""
        return 1.0 - loss

    def loss_at(self, value: float) -> float:
        """Return the share of other choices."""
        return 1.0 - value

    def show(self, value: float) -> str:
        """Return per cent."""
        return f"{100 * value:.4g} %"

    def fitted(self, low: float, high: float) -> Self:  # noqa: ARG002  (choices have no scale)
        """Return itself."""
        return self


@dataclass(frozen=True, slots=True)
class CosineSimilarity:
    """The mean cosine between vectors: along the last axis; of maps (four axes or more), of the whole.

    >>> CosineSimilarity().loss(np.float32([[1, 0, 0]]), np.float32([[0, 1, 0]]), None)
    1.0

    Attributes:
        least: The least mean cosine.
    """

    least: float = 0.98
    word: ClassVar[str] = "cosine"
    about: ClassVar[str] = "cosine similarity"
    worst_multiple: ClassVar[float | None] = 10.0

    def loss(self, reference: np.ndarray, candidate: np.ndarray, counted: np.ndarray | None) -> float:
        """Return 1 - cosine, averaged over vectors; a vector against zeros counts as orthogonal."""
        if reference.ndim >= _PICTURE_AXES:
            rows, others, counted = reference.reshape(1, -1), candidate.reshape(1, -1), None
        else:
            rows, others = np.atleast_1d(reference), np.atleast_1d(candidate)
        with np.errstate(invalid="ignore"):  # padding may hold infinity; it does not count
            exact, length = _unit_rows(rows)
            mine, other_length = _unit_rows(others)
            cosine = np.sum(exact * mine, axis=-1)
        both_zero = (length == 0) & (other_length == 0)
        return _mean_counted(np.where(both_zero, 0.0, np.clip(1.0 - cosine, 0.0, 2.0)), counted)

    def value(self, loss: float) -> float:
        """Return the mean cosine."""
        return 1.0 - loss

    def loss_at(self, value: float) -> float:
        """Return 1 - cosine."""
        return 1.0 - value

    def show(self, value: float) -> str:
        """Return five digits: the interesting ones come late."""
        return f"{value:.5f}"

    def fitted(self, low: float, high: float) -> Self:  # noqa: ARG002  (directions have no scale)
        """Return itself."""
        return self


@dataclass(frozen=True, slots=True)
class Psnr:
    """The peak signal-to-noise ratio in dB, from the mean squared error over all samples.

    >>> round(Psnr(peak=255).value(Psnr(peak=255).loss(np.uint8([10, 20]), np.uint8([12, 18]), None)), 1)
    42.1

    Attributes:
        least: The least ratio, in dB.
        peak: Largest minus least value that there is; absent, it is that of the reference's answers.
    """

    least: float = 30.0
    peak: float | None = None
    word: ClassVar[str] = "psnr"
    about: ClassVar[str] = "PSNR"
    worst_multiple: ClassVar[float | None] = 10.0

    def loss(self, reference: np.ndarray, candidate: np.ndarray, counted: np.ndarray | None) -> float:
        """Return the mean squared error over the square of the peak."""
        scale = max(1.0 if self.peak is None else self.peak, TINY)
        with np.errstate(invalid="ignore", over="ignore"):
            error = (candidate.astype(np.float64) - reference.astype(np.float64)) / scale
            return _mean_counted(np.square(error), counted)

    def value(self, loss: float) -> float:
        """Return dB, at most 100."""
        return -10.0 * math.log10(max(loss, _LEAST_LOSS)) if math.isfinite(loss) else -math.inf

    def loss_at(self, value: float) -> float:
        """Return the mean squared error over the square of the peak."""
        return math.pow(10.0, -value / 10.0)

    def show(self, value: float) -> str:
        """Return dB."""
        return f"{value:.1f} dB"

    def fitted(self, low: float, high: float) -> Self:
        """Return the metric with this peak, if it has none of its own."""
        return self if self.peak is not None else replace(self, peak=high - low)


Metric = TopOneAgreement | CosineSimilarity | Psnr
"""What an output is judged by."""

METRICS: Final[Mapping[str, Metric]] = {
    "cosine": CosineSimilarity(),
    "psnr": Psnr(),
    "top-1": TopOneAgreement(),
}


def _unit_rows(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 rows of length 1 (or 0), and their largest elements."""
    rows = array.astype(np.float64)
    largest = np.max(np.abs(rows), axis=-1, initial=0.0)
    # scaled by their own largest element, so that no square vanishes or overflows
    scaled = rows / np.where(largest > 0, largest, 1.0)[..., None]
    lengths = np.linalg.norm(scaled, axis=-1)
    return scaled / np.where(lengths > 0, lengths, 1.0)[..., None], largest


def _mean_counted(losses: np.ndarray, counted: np.ndarray | None) -> float:
    if losses.size == 0:
        return math.nan
    if counted is None:
        return float(np.mean(losses))
    where = np.broadcast_to(
        counted.reshape(*counted.shape, *(1,) * (losses.ndim - counted.ndim)), losses.shape
    )
    return float(np.mean(losses[where])) if where.any() else math.nan


def laxest(word: str) -> float:
    """Return the least value that may be asked of a metric.

    >>> round(laxest("top-1"), 2), round(laxest("cosine"), 2), round(laxest("psnr"))
    (0.8, 0.92, 24)
    """
    metric = METRICS[word]
    return metric.value(LAXEST_MULTIPLE * metric.loss_at(metric.least))


def metric_from(text: str, axis: int = -1) -> Metric:
    """Read a metric and its limit.

    >>> metric_from("cosine:0.99")
    CosineSimilarity(least=0.99)

    Args:
        text: ``top-1``, ``cosine`` or ``psnr``, and ``:LEAST`` where the default is not wanted.
        axis: Along which ``top-1`` chooses.

    Raises:
        UsageError: There is no such metric, or its limit means nothing.
    """
    word, colon, number = text.partition(":")
    if word not in METRICS:
        raise UsageError(f"there is no metric '{word}'{did_you_mean(word, METRICS)}")
    metric = METRICS[word]
    if isinstance(metric, TopOneAgreement):
        metric = replace(metric, axis=axis)
    return replace(metric, least=_limit(word, number)) if colon else metric


def _limit(word: str, number: str) -> float:
    metric, least = METRICS[word], laxest(word)
    try:
        value = float(number)
    except ValueError as err:
        raise UsageError(
            f"'{number}' is no limit for the metric '{word}'", do=f"write {word}:{metric.least}"
        ) from err
    if not is_limit(word, value):
        raise UsageError(
            f"the metric '{word}' can be held to {metric.show(least)} or more, not to {number}",
            do=f"write {word}:{metric.least}, or leave the number out",
        )
    return value


def is_limit(word: str, value: float) -> bool:
    """Say whether a metric may be held to this: not laxer than `laxest`, and not beyond perfect."""
    # a limit that was computed from a loss may miss the laxest one by its last bits
    return laxest(word) - 1e-9 <= value <= METRICS[word].value(0.0)


def choose_metrics(task: str | None, outputs: Sequence[TensorSpec]) -> dict[str, Metric]:
    """Choose a metric for every output, from the task, and the output's name, type and axes.

    Scores and whole numbers: `TopOneAgreement`. Pictures, and outputs of one or two numbers: `Psnr`.
    Everything else: `CosineSimilarity`.

    >>> from anyport.tensors import tensor
    >>> choose_metrics(None, [tensor("sentence", "float32[batch, 384]")])
    {'sentence': CosineSimilarity(least=0.98)}
    """
    return {spec.name: _metric_for(task, spec) for spec in outputs}


def _metric_for(task: str | None, spec: TensorSpec) -> Metric:
    sizes = [axis.size({}) if axis.is_fixed else None for axis in spec.axes]
    is_small = len(sizes) < 2 or (sizes[-1] is not None and sizes[-1] < _LEAST_VECTOR)  # noqa: PLR2004
    if not spec.is_float:
        return (
            Psnr(peak=255.0) if spec.dtype == "uint8" and len(sizes) == _PICTURE_AXES else TopOneAgreement()
        )
    are_scores = task == "classify" or bool(_SCORES.search(spec.name))
    if are_scores and len(sizes) > 1 and sizes[_class_axis(sizes)] != 1:
        return TopOneAgreement(axis=_class_axis(sizes))
    if is_small or (len(sizes) == _PICTURE_AXES and sizes[1] in _PICTURE_CHANNELS):
        return Psnr(peak=None if spec.low is None or spec.high is None else spec.high - spec.low)
    return CosineSimilarity()


def _class_axis(sizes: Sequence[int | None]) -> int:
    """Return the axis of the classes: the last, but of maps ``[batch, class, height, width]`` the second."""
    return 1 if len(sizes) == _PICTURE_AXES else -1
