"""A lossy variant whose task is judged as a whole: measured again, on this machine, without PyTorch."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.bundle.lossy import read_lossy_task
from anyport.bundle.manifest import PartEntry
from anyport.errors import BundleError, InputError, SessionError
from anyport.task.graphs import OpenGraphs
from anyport.task.trials import PICTURE, TOKENS, WRITTEN, open_trial
from anyport.tensors import Signature
from anyport.verify.agreement import Evaluation, Losses, judge, measure_agreement
from anyport.verify.lossy import recording_of
from anyport.verify.metric import Psnr, TopOneAgreement, choose_metrics
from anyport.verify.verdict import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from anyport.bundle.lossy import StoredTask
    from anyport.bundle.reading import Bundle, GraphFile
    from anyport.runtime.session import Session
    from anyport.task.trials import Trial
    from anyport.verify.agreement import Measure, Recording, Run
    from anyport.verify.metric import Metric

    OpenGraph = Callable[[GraphFile], Session]

# The exact graphs may lose this share of what a metric's default limit lets a lossy graph lose, whatever
# limit the bundle names: other processors round otherwise, and a choice between two equally good tokens may
# flip. Of choices it is one in 200; two of 64 pictures exchanged are one in 32, where all choices differ.
EXACT_SHARE: Final = 0.1
_NO_EXACT: Final = "the bundle has no exact variant: that the recorded answers are exact is the maker's word"
_UNPROVEN: Final = "the exact variant {}, which gives the recorded answers, is not proven itself"


def measure_task(
    bundle: Bundle, variant: str, open_graph: OpenGraph, wanted: Collection[str]
) -> dict[str, Evaluation]:
    """Let the task answer the samples of the proof.

    The exact graphs answer them, too: an answer that is recorded as exact and is not theirs is a failure.
    Without any in the bundle the evaluation says so.

    Args:
        bundle: Stays the caller's to close.
        variant: Whose metric is of the whole task.
        open_graph: Opens one of its graphs; those of one variant are open together.
        wanted: Parts.

    Returns:
        The same evaluation for each of these parts that is lossy.

    Raises:
        BundleError: The proof is not one of this task, or allows nearly everything.
        SessionError: A graph cannot be opened.
    """
    stored = read_lossy_task(bundle, variant)
    lossy = set(wanted) & set(stored.parts)
    if not lossy:
        return {}
    with ExitStack() as open_sessions:
        trial = _open(bundle, variant, open_graph, open_sessions)
        recording = _recorded(stored, trial)
        found = _measured(recording, trial, variant)
    exact = _exact_variant(bundle)
    if exact is None:
        return dict.fromkeys(lossy, replace(found, notes=(_NO_EXACT,)))
    with ExitStack() as open_sessions:
        trial = _open(bundle, exact, open_graph, open_sessions)
        usual = replace(recording, metrics=choose_metrics(None, trial.outputs))
        theirs = _measured(usual, trial, variant, EXACT_SHARE)
    notes = () if bundle.manifest.variants[exact].proven else (_UNPROVEN.format(exact),)
    return dict.fromkeys(lossy, Evaluation((*found.measures, *_foreign(theirs, exact)), notes))


def form_of(signature: Signature) -> PartEntry:
    """Return a signature as the manifest writes that of a part."""
    return PartEntry(
        {spec.name: str(spec) for spec in signature.inputs},
        {spec.name: str(spec) for spec in signature.outputs},
        {name: str(sizes) for name, sizes in signature.dims.items()},
    )


def _open(bundle: Bundle, variant: str, open_graph: OpenGraph, sessions: ExitStack) -> Trial:
    said, opened = bundle.manifest, {}
    for part in said.parts:
        opened[part] = open_graph(bundle.graph_file(part, variant))
        sessions.callback(opened[part].close)
    parts = {
        name: Signature(part.input_specs(), part.output_specs(), part.dim_ranges())
        for name, part in said.parts.items()
    }
    return open_trial(OpenGraphs(said.task, said.settings, parts, opened, bundle.read_bytes, bundle.path))


def _recorded(stored: StoredTask, trial: Trial) -> Recording:
    judged = stored.judged(form_of(trial.signature), trial.parts)
    recording = recording_of(judged, stored.arrays, trial.signature, stored.n_declared, stored.where)
    for name, usual in choose_metrics(None, trial.outputs).items():
        found = recording.metrics[name]
        if replace(found, least=usual.least) != usual:
            raise BundleError(
                f"{stored.place}: output '{name}' is judged by {_kind(found)}, must be by {_kind(usual)}",
                where=stored.where,
            )
    numbers: dict[bytes, int] = {}
    for number, run in enumerate(recording.runs, start=1):
        if WRITTEN in run.feeds and not np.array_equal(run.feeds[WRITTEN], run.answers[TOKENS]):
            raise BundleError(
                f"run {number}: its exact tokens are not those that were written", where=stored.where
            )
        first = numbers.setdefault(_digest(run.feeds), number)
        if first != number:
            raise BundleError(f"run {number}: its picture is that of run {first}", where=stored.where)
    return recording


def _kind(metric: Metric) -> str:
    """Return a metric without its limit."""
    if isinstance(metric, TopOneAgreement):
        return f"{metric.word} along axis {metric.axis}"
    return f"{metric.word} with a peak of {metric.peak}" if isinstance(metric, Psnr) else metric.word


def different(recording: Recording) -> Recording:
    """Leave out samples of a task whose picture came before: they would count twice, and say nothing new."""
    first: dict[bytes, Run] = {}
    for run in recording.runs:
        first.setdefault(_digest(run.feeds), run)
    return replace(recording, runs=list(first.values()))


def _digest(feeds: Mapping[str, np.ndarray]) -> bytes:
    """Return what stands for a sample: its picture alone, since a text reads the same with more padding."""
    return hashlib.sha256(feeds[PICTURE].tobytes()).digest()


def _measured(recording: Recording, trial: Trial, variant: str, share: float = 1.0) -> Evaluation:
    try:
        return measure_agreement(recording, trial, share)
    except InputError as err:  # what a proof holds is no input of the user's
        raise BundleError(f"proof/{variant}.json: task: {err.what}") from err
    except SessionError as err:
        return failed(recording, err.what)


def failed(recording: Recording, why: str) -> Evaluation:
    """Return what a task is worth that came to no end: its numbers were not finite, or a runtime failed."""
    lost = Losses(n_samples=0, mean=1.0, worst=1.0, worst_sample=0, contrast=0.0, failure=why)
    return Evaluation(tuple(judge(name, metric, lost, 1.0) for name, metric in recording.metrics.items()))


def _exact_variant(bundle: Bundle) -> str | None:
    variants = bundle.manifest.variants
    exact = [name for name, entry in variants.items() if entry.metric is None]
    default = bundle.manifest.default_variant
    return min(exact, key=lambda name: (not variants[name].proven, name != default), default=None)


def _foreign(theirs: Evaluation, exact: str) -> list[Measure]:
    """Return what the exact graphs answer otherwise than is recorded."""
    reason = f"the recorded answers are not those of the exact variant {exact}"
    return [
        replace(one, reason=f"{reason}: {one.reason}" if _is_broken(one) else reason)
        for one in theirs.measures
        if one.status is Status.FAIL
    ]


def _is_broken(one: Measure) -> bool:
    return one.losses is not None and bool(one.losses.failure)
