"""How well a lossy variant answers: the exact answers to some samples in, an `Evaluation` out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from anyport.errors import MismatchError
from anyport.verify.finding import json_number
from anyport.verify.metric import LAXEST_MULTIPLE, METRICS, TopOneAgreement
from anyport.verify.padding import counted_positions, is_batched, spread
from anyport.verify.verdict import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anyport.runtime.session import Session
    from anyport.tensors import Signature, TensorSpec
    from anyport.verify.metric import Metric

# A variant that changes one choice in ten passes 64 samples by luck in 4 % of all cases (two changes are
# allowed at the build), 256 samples in less than 0.1 %; with 20 samples it would pass in 12 %.
MIN_SAMPLES: Final = 64

# At the build a variant may use this share of the loss that is allowed anywhere else: the rest is room for
# processors that round otherwise, on which nobody can try it before it is delivered.
BUILD_SHARE: Final = 0.8

# Two different samples must differ by this multiple of what is allowed. Else a variant that gives everybody
# the same answer would nearly pass, and the measurement says nothing.
MIN_CONTRAST: Final = 4.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the exact model: its inputs, and what it answered."""

    feeds: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Recording:
    """What a lossy variant of one part is held against.

    Attributes:
        signature: Of the part.
        metrics: Output -> how it is judged, for every output.
        runs: Iterated over twice for each candidate; may read from the disk.
    """

    signature: Signature
    metrics: Mapping[str, Metric]
    runs: Iterable[Run]


@dataclass(frozen=True, slots=True)
class Losses:
    """What the samples cost, for one output.

    Attributes:
        n_samples: How many count; of a batch, each place is one.
        mean: Mean loss.
        worst: Largest loss.
        worst_sample: Its number, from 1.
        contrast: Mean loss between the exact answers to neighbouring samples.
        failure: What cannot be measured, such as NaN or a missing output; empty if nothing.
    """

    n_samples: int
    mean: float
    worst: float
    worst_sample: int
    contrast: float
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of an evaluation, and the judgement on it.

    Attributes:
        output: The output; empty for a user's metric, which looks at what it likes.
        word: The metric: a key of `METRICS`, or the user's ``evaluate.py:accuracy``.
        about: The metric in messages: ``top-1 agreement``, ``accuracy``.
        value: What was found; larger is better.
        allowance: The least that passes, anywhere.
        n_samples: How many samples; 0 where the user's function keeps that to itself.
        status: PASS, FAIL, or INCONCLUSIVE.
        text: What was found and allowed, in words.
        reason: Why it does not pass; empty for a pass.
        used: The share of the allowed loss that was used; above 1 it fails.
        losses: Behind the value; ``None`` for a user's metric.
    """

    output: str
    word: str
    about: str
    value: float
    allowance: float
    n_samples: int
    status: Status
    text: str
    reason: str = ""
    used: float = 0.0
    losses: Losses | None = None

    @property
    def line(self) -> str:
        """The figure and, where it does not pass, why not."""
        place = f"'{self.output}' " if self.output else ""
        return f"{place}{self.text}" + (f": {self.reason}" if self.reason else "")

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict; numbers that JSON cannot hold become words."""
        found: dict[str, Any] = {
            "output": self.output,
            "metric": self.word,
            "value": json_number(self.value),
            "allowance": json_number(self.allowance),
            "n_samples": self.n_samples,
            "status": self.status.value,
            "reason": self.reason,
        }
        if self.losses is not None and self.word in METRICS:
            metric = METRICS[self.word]
            found["worst"] = json_number(metric.value(self.losses.worst))
            found["worst_sample"] = self.losses.worst_sample
            found["between_samples"] = json_number(metric.value(self.losses.contrast))
        return found


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured of one lossy graph.

    Attributes:
        measures: The user's first, where there is one, then one for each output.
        notes: What a reader must know beside them.
    """

    measures: tuple[Measure, ...]
    notes: tuple[str, ...] = ()

    @property
    def deciding(self) -> Measure:
        """Quoted for all: a failed measure, else an inconclusive one, else that with the least room."""
        order = (Status.PASS, Status.INCONCLUSIVE, Status.FAIL)
        return max(self.measures, key=lambda one: (order.index(one.status), one.used))

    @property
    def status(self) -> Status:
        """FAIL if any measure fails, else INCONCLUSIVE if any is, else PASS."""
        return self.deciding.status

    @property
    def passed(self) -> bool:
        """Whether every measure passes."""
        return self.status is Status.PASS

    @property
    def value(self) -> float:
        """Of the deciding measure."""
        return self.deciding.value

    @property
    def allowance(self) -> float:
        """Of the deciding measure."""
        return self.deciding.allowance

    @property
    def n_samples(self) -> int:
        """The least that any output was judged by."""
        return min((one.n_samples for one in self.measures if one.losses is not None), default=0)

    def line(self) -> str:
        """Return one line: what does not pass; else the user's figure, or that with the least room."""
        return (self.measures[0] if self.passed and not self.measures[0].output else self.deciding).line

    def raise_if_bad(self, where: str | None = None, *, allow_inconclusive: bool = False) -> None:
        """Do nothing if the evaluation passes.

        Raises:
            MismatchError: It fails, or is inconclusive and that is not allowed.
        """
        if self.passed or (allow_inconclusive and self.status is Status.INCONCLUSIVE):
            return
        words = "the metric is inconclusive: " if self.status is Status.INCONCLUSIVE else ""
        raise MismatchError(f"{words}{self.deciding.line}", where=where, do=what_helps(self.deciding))

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        measures = [one.to_json() for one in self.measures]
        return {"status": self.status.value, "measures": measures, "notes": list(self.notes)}


def what_helps(measure: Measure) -> str:
    """Return what a user may do about a measure that does not pass."""
    if measure.status is Status.INCONCLUSIVE:
        return "give more samples, of different kinds: pictures and sentences as users will send them"
    return "calibrate with more typical samples, try another method, or keep more layers in float"


def measure_agreement(recording: Recording, candidate: Session, share: float = 1.0) -> Evaluation:
    """Let a graph answer the recorded samples, and judge its answers.

    Example::

        evaluation = measure_agreement(recording, open_session("int8.onnx"), share=BUILD_SHARE)
        evaluation.raise_if_bad()

    Args:
        recording: The exact answers.
        candidate: Stays the caller's to close; runs every sample once.
        share: Of the allowed loss that may be used; `BUILD_SHARE` at the build, all of it elsewhere.

    Raises:
        MismatchError: An exact answer is NaN (or infinite, where that is no score): nothing to compare with.
    """
    metrics = _fitted(recording)
    specs = {spec.name: spec for spec in recording.signature.outputs}
    tallies = {name: _Tally(specs[name], metric) for name, metric in metrics.items()}
    for number, lazy in enumerate(recording.runs, start=1):
        run = Run(dict(lazy.feeds), dict(lazy.answers))
        outputs = candidate.run(run.feeds)
        for tally in tallies.values():
            tally.add(run, outputs, recording.signature.inputs, f"run {number}")
    return Evaluation(tuple(judge(name, metrics[name], tallies[name].losses(), share) for name in metrics))


def _fitted(recording: Recording) -> dict[str, Metric]:
    """Return the metrics, scaled to what the exact answers span."""
    spans = {
        name: (math.inf, -math.inf) for name, one in recording.metrics.items() if one.fitted(0, 1) != one
    }
    for run in recording.runs if spans else ():
        for name, (low, high) in spans.items():
            finite = run.answers[name][np.isfinite(run.answers[name])].astype(np.float64)
            spans[name] = min(low, float(finite.min(initial=low))), max(high, float(finite.max(initial=high)))
    ends = {name: span if span[0] <= span[1] else (0.0, 0.0) for name, span in spans.items()}
    return {name: one.fitted(*ends.get(name, (0.0, 0.0))) for name, one in recording.metrics.items()}


@dataclass(slots=True)
class _Tally:
    """Gathers the losses of one output, sample by sample."""

    spec: TensorSpec
    metric: Metric
    found: list[float] = field(default_factory=list)
    contrasts: list[float] = field(default_factory=list)
    before: np.ndarray | None = None
    failure: str = ""

    def add(
        self, run: Run, outputs: Mapping[str, np.ndarray], inputs: tuple[TensorSpec, ...], place: str
    ) -> None:
        """Compare one run; after a failure, do nothing."""
        if self.failure:
            return
        exact, got = run.answers[self.spec.name], outputs.get(self.spec.name)
        if got is None:
            self.failure = "the graph has no such output"
        elif (got.dtype, got.shape) != (exact.dtype, exact.shape):
            self.failure = (
                f"it is {got.dtype}{list(got.shape)}, must be {exact.dtype}{list(exact.shape)}; {place}"
            )
        else:
            counted = counted_positions(self.spec, inputs, run.feeds)
            self.failure = self._special(exact, got, counted, place)
            step = 1 if is_batched(self.spec, inputs) else max(len(exact) if exact.ndim else 1, 1)
            for start in range(0, (len(exact) if exact.ndim else 1) if not self.failure else 0, step):
                self._add_sample(*(_cut(array, start, step) for array in (exact, got, counted)))

    def _special(self, exact: np.ndarray, got: np.ndarray, counted: np.ndarray | None, place: str) -> str:
        """Refuse NaN and infinity in what counts: -inf alone may be a score, of what is never chosen."""
        counts = np.broadcast_to(True if counted is None else spread(counted, exact.ndim), exact.shape)
        has_meaning = ~np.isnan(exact) if isinstance(self.metric, TopOneAgreement) else np.isfinite(exact)
        if not has_meaning[counts].all():
            raise MismatchError(
                f"the exact answer '{self.spec.name}' is NaN or infinite in {place}: nothing to compare with",
                do="leave this sample out",
            )
        n_bad = int(np.count_nonzero(counts & np.isfinite(exact) & ~np.isfinite(got)))
        return f"{n_bad} of {exact.size} elements are NaN or infinite in {place}" if n_bad else ""

    def _add_sample(
        self, exact: np.ndarray | None, got: np.ndarray | None, counted: np.ndarray | None
    ) -> None:
        if exact is None or got is None:
            return
        self.found.append(self.metric.loss(exact, got, counted))
        if self.before is not None and self.before.ndim == exact.ndim:
            common = tuple(slice(0, min(pair)) for pair in zip(self.before.shape, exact.shape, strict=True))
            only = None if counted is None else counted[common[: counted.ndim]]
            self.contrasts.append(self.metric.loss(exact[common], self.before[common], only))
        self.before = exact

    def losses(self) -> Losses:
        """Return what was gathered."""
        known = [(loss, number) for number, loss in enumerate(self.found, start=1) if not math.isnan(loss)]
        contrasts = [loss for loss in self.contrasts if not math.isnan(loss)]
        worst, worst_sample = max(known, default=(0.0, 0), key=lambda pair: (pair[0], -pair[1]))
        return Losses(
            n_samples=len(known),
            mean=math.fsum(loss for loss, _ in known) / max(len(known), 1),
            worst=worst,
            worst_sample=worst_sample,
            contrast=math.fsum(contrasts) / max(len(contrasts), 1),
            failure=self.failure,
        )


def _cut(array: np.ndarray | None, start: int, step: int) -> np.ndarray | None:
    return array[start : start + step] if array is not None and array.ndim else array


def judge(output: str, metric: Metric, losses: Losses, share: float) -> Measure:
    """Judge what the samples cost.

    Args:
        output: The name of the output.
        metric: With the limit it is held to.
        losses: What was found.
        share: Of the allowed loss that may be used.
    """
    allowed = metric.loss_at(metric.least) * share
    status, reason = _judgement(metric, losses, allowed, share)
    found, needed = (metric.show(metric.value(loss)) for loss in (losses.mean, allowed))
    return Measure(
        output=output,
        word=metric.word,
        about=metric.about,
        value=metric.value(losses.mean),
        allowance=metric.least,
        n_samples=losses.n_samples,
        status=status,
        text=f"{metric.about} {found} over {losses.n_samples} samples, {needed} needed",
        reason=reason,
        used=math.inf if losses.failure else _used(metric, losses, allowed),
        losses=losses,
    )


def _used(metric: Metric, losses: Losses, allowed: float) -> float:
    loss = max(losses.mean, 0.0 if metric.worst_multiple is None else losses.worst / metric.worst_multiple)
    return loss / allowed if allowed else (math.inf if loss else 0.0)


def _judgement(metric: Metric, losses: Losses, allowed: float, share: float) -> tuple[Status, str]:
    if losses.failure:
        return Status.FAIL, losses.failure
    if losses.mean > allowed * (1 + 1e-9):  # 1 - 0.9 is 0.09999999999999998
        return Status.FAIL, "it answers too differently"
    if metric.worst_multiple is not None and losses.worst > metric.worst_multiple * allowed:
        worst, least = (metric.value(loss) for loss in (losses.worst, metric.worst_multiple * allowed))
        lost = f"sample {losses.worst_sample} has {metric.show(worst)}, each must have {metric.show(least)}"
        return Status.FAIL, f"one answer is lost: {lost}"
    if losses.n_samples < MIN_SAMPLES:
        return Status.INCONCLUSIVE, f"{losses.n_samples} samples say too little, {MIN_SAMPLES} are needed"
    if losses.contrast < MIN_CONTRAST * allowed / share:
        same = metric.show(metric.value(losses.contrast))
        return Status.INCONCLUSIVE, f"the exact answers to different samples are too much alike ({same})"
    return Status.PASS, ""


def relaxed(evaluation: Evaluation, metrics: Mapping[str, Metric], share: float) -> Evaluation:
    """Hold outputs to what they reach, where a user's metric has decided that it is enough.

    A limit moves no further than `anyport.verify.metric.laxest`; what is beyond still fails.
    """
    return Evaluation(tuple(_relaxed(one, metrics, share) for one in evaluation.measures))


def _relaxed(measure: Measure, metrics: Mapping[str, Metric], share: float) -> Measure:
    losses = measure.losses
    if losses is None or losses.failure or measure.used <= 1:
        return measure
    metric = metrics[measure.output]
    default = METRICS[metric.word]
    wanted = (
        losses.mean
        if metric.worst_multiple is None
        else max(losses.mean, losses.worst / metric.worst_multiple)
    )
    most = LAXEST_MULTIPLE * default.loss_at(default.least)
    least = metric.value(min(wanted / share * (1 + 1e-9), most))
    return judge(measure.output, replace(metric, least=least), losses, share)
