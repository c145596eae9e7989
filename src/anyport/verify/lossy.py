"""A lossy variant: what the build measured becomes its proof, and the proof is measured again anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from anyport.bundle.lossy import (
    LossyPart,
    LossyProof,
    LossyRun,
    LossyTask,
    OutputMetric,
    write_lossy_proof,
)
from anyport.bundle.manifest import MetricEntry
from anyport.bundle.paths import shown
from anyport.errors import BundleError, did_you_mean
from anyport.tensors import check_feeds
from anyport.verify.agreement import Recording, Run
from anyport.verify.metric import METRICS, Psnr, TopOneAgreement, is_limit, laxest
from anyport.verify.narrowing import Widened
from anyport.verify.padding import is_batched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from anyport.bundle.proof import StoredArrays
    from anyport.tensors import Signature, TensorSpec
    from anyport.verify.agreement import Evaluation, Measure
    from anyport.verify.metric import Metric


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One lossy part: what it was held against, and what came out."""

    recording: Recording
    evaluation: Evaluation


def write_evaluated(
    folder: Path, variant: str, parts: Mapping[str, Evaluated], isa: Sequence[str]
) -> MetricEntry:
    """Write what was measured of a lossy variant as its proof.

    Example::

        evaluation = evaluate(recording, candidate)
        evaluation.raise_if_bad()
        metric = write_evaluated(staging.folder, "int8", {"network": Evaluated(recording, evaluation)}, isa)
        VariantEntry(graphs, steps, proven=True, metric=metric)

    Args:
        folder: Of the bundle that is being made.
        variant: Its name; gives ``proof/<variant>.json`` and ``.safetensors``.
        parts: Every part whose graph is lossy in this variant.
        isa: The instruction sets of this processor, as `anyport.bench.machine.cpu_flags` says.

    Returns:
        For the manifest.

    Raises:
        MismatchError: An evaluation failed: such a variant is not written.
        BundleError: The disk is full.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, part in parts.items():
        part.evaluation.raise_if_bad(f"part {name}, variant {variant}", allow_inconclusive=True)
    proof = LossyProof({name: _part_of(name, part, arrays) for name, part in parts.items()}, list(isa))
    write_lossy_proof(folder, variant, proof, arrays)
    return _entry_of(parts, isa)


def write_task_evaluated(
    folder: Path, variant: str, judged: tuple[Sequence[str], Evaluated], note: str, isa: Sequence[str]
) -> MetricEntry:
    """Write what was measured of a variant whose task was judged as a whole.

    Args:
        folder: Of the bundle that is being made.
        variant: Its name.
        judged: The parts whose graph is lossy, and what the task's trial was held against.
        note: For the manifest.
        isa: The instruction sets of this processor.

    Returns:
        For the manifest.

    Raises:
        MismatchError: The evaluation failed: such a variant is not written.
        BundleError: The disk is full.
    """
    parts, evaluated = judged
    evaluated.evaluation.raise_if_bad(f"variant {variant}", allow_inconclusive=True)
    arrays: dict[str, np.ndarray] = {}
    task = LossyTask(list(parts), _part_of("task", evaluated, arrays))
    write_lossy_proof(folder, variant, LossyProof({}, list(isa), task), arrays)
    return msgspec.structs.replace(_entry_of({"": evaluated}, isa), note=note)


def _part_of(name: str, part: Evaluated, arrays: dict[str, np.ndarray]) -> LossyPart:
    recording, metrics = part.recording, part.recording.metrics
    outputs = {
        one.output: _output_of(one, metrics[one.output]) for one in part.evaluation.measures if one.output
    }
    runs = [
        _run_of(f"{name}/{number}", run, recording.signature, arrays)
        for number, run in enumerate(recording.runs, start=1)
    ]
    return LossyPart(outputs, runs)


def _output_of(measure: Measure, metric: Metric) -> OutputMetric:
    return OutputMetric(
        metric=metric.word,
        allowance=measure.allowance,
        value=measure.value,
        axis=metric.axis if isinstance(metric, TopOneAgreement) else -1,
        peak=metric.peak if isinstance(metric, Psnr) else None,
    )


def _run_of(place: str, run: Run, signature: Signature, arrays: dict[str, np.ndarray]) -> LossyRun:
    keys: list[dict[str, str]] = []
    for kind, tensors in (("input", run.feeds), ("answer", run.answers)):
        keys.append({name: f"{place}/{kind}/{name}" for name in tensors})
        for name, key in keys[-1].items():
            arrays[key] = tensors.stored(name) if isinstance(tensors, Widened) else tensors[name]
    return LossyRun(check_feeds(dict(run.feeds), signature.inputs, signature.dims), *keys)


def _entry_of(parts: Mapping[str, Evaluated], isa: Sequence[str]) -> MetricEntry:
    own = [(name, one) for name, part in parts.items() for one in part.evaluation.measures]
    name, deciding = max(((n, one) for n, one in own if one.output), key=lambda pair: pair[1].used)
    return MetricEntry(
        part=name,
        output=deciding.output,
        metric=deciding.word,
        value=deciding.value,
        allowance=deciding.allowance,
        n_samples=min(part.evaluation.n_samples for part in parts.values()),
        isa=list(isa),
        note="; ".join(one.text for _, one in own if not one.output),
    )


def metric_line(entry: MetricEntry) -> str:
    """Return what a lossy variant is worth, in one line: for lists, cards and logs.

    >>> metric_line(MetricEntry("network", "logits", "top-1", 0.996, 0.95, 256, ["avx2"]))
    "'logits' top-1 agreement 99.6 %, 95 % needed; 256 samples, measured on avx2"
    >>> metric_line(MetricEntry("", "tokens", "top-1", 0.996, 0.95, 64, ["avx2"]))
    "whole task: 'tokens' top-1 agreement 99.6 %, 95 % needed; 64 samples, measured on avx2"
    """
    metric = METRICS.get(entry.metric)
    about, show = (entry.metric, "{:.6g}".format) if metric is None else (metric.about, metric.show)
    note = f"{entry.note}; " if entry.note else ""
    where = f"{entry.n_samples} samples, measured on {', '.join(entry.isa) or 'a processor without a name'}"
    task = "" if entry.part else "whole task: "
    return (
        f"{note}{task}'{entry.output}' {about} {show(entry.value)}, {show(entry.allowance)} needed; {where}"
    )


@dataclass(frozen=True, slots=True)
class StoredRuns:
    """The runs of a proof; each is read from the disk when its turn comes."""

    part: LossyPart
    arrays: Mapping[str, np.ndarray]
    signature: Signature

    def __iter__(self) -> Iterator[Run]:
        """Read one run after the other."""
        for run in self.part.runs:
            yield Run(
                Widened(self.arrays, run.inputs, self.signature.inputs),
                Widened(self.arrays, run.answers, self.signature.outputs),
            )


def recording_of(
    part: LossyPart, arrays: StoredArrays, signature: Signature, n_declared: int, where: str
) -> Recording:
    """Return what a proof recorded of one part.

    Args:
        part: From `anyport.bundle.lossy.read_lossy_proof`, which has checked it.
        arrays: From there, too; read when a run's turn comes.
        signature: Of the part.
        n_declared: How many samples the manifest says there are.
        where: For messages.

    Raises:
        BundleError: There are fewer samples, a metric is unknown, or its limit lets nearly everything pass.
    """
    specs = {spec.name: spec for spec in signature.outputs}
    metrics = {name: _metric_of(one, specs[name], where) for name, one in part.outputs.items()}
    n_samples = sum(_samples_of(run, arrays, signature) for run in part.runs)
    if n_samples < n_declared:
        raise BundleError(
            f"the proof has {n_samples} samples, the manifest says {n_declared}",
            where=where,
            do="fetch the bundle again, or build it again",
        )
    return Recording(signature, metrics, StoredRuns(part, arrays, signature))


def _samples_of(run: LossyRun, arrays: StoredArrays, signature: Signature) -> int:
    entries = [(spec, arrays.entries[run.answers[spec.name]]) for spec in signature.outputs]
    return min(one.shape[0] if is_batched(spec, signature.inputs) else 1 for spec, one in entries)


def _metric_of(one: OutputMetric, spec: TensorSpec, where: str) -> Metric:
    if one.metric not in METRICS:
        raise BundleError(
            f"output '{spec.name}' is judged by {shown(one.metric)}, a metric that this anyport does not know"
            f"{did_you_mean(one.metric[:100], METRICS)}",
            where=where,
            do="pip install --upgrade anyport",
        )
    metric = METRICS[one.metric]
    if not is_limit(one.metric, one.allowance):
        low, high = (metric.show(limit) for limit in (laxest(one.metric), metric.value(0.0)))
        raise BundleError(
            f"output '{spec.name}' may have a {metric.about} of {one.allowance:.6g}: a bundle may ask for "
            f"{low} to {high}",
            where=where,
            do="do not use this variant; its maker can build it again with an honest limit",
        )
    if isinstance(metric, TopOneAgreement):
        if spec.is_float and (not spec.axes or one.axis not in {-1, *range(1, len(spec.axes))}):
            raise BundleError(
                f"output '{spec.name}' is {spec}: it has no axis {one.axis} to choose along", where=where
            )
        return replace(metric, least=one.allowance, axis=one.axis)
    if isinstance(metric, Psnr):
        if one.peak is not None and not (math.isfinite(one.peak) and one.peak > 0):
            raise BundleError(f"output '{spec.name}' has a peak of {one.peak}", where=where)
        return replace(metric, least=one.allowance, peak=one.peak)
    return replace(metric, least=one.allowance)
