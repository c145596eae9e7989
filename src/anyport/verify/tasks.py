"""A lossy variant whose task is judged as a whole: measured again, on this machine, without PyTorch."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.bundle.lossy import read_lossy_proof
from anyport.bundle.manifest import PartEntry
from anyport.errors import BundleError, InputError
from anyport.task.trials import TOKENS, WRITTEN, PartSessions, open_trial
from anyport.tensors import Signature
from anyport.verify.agreement import Evaluation, measure_agreement
from anyport.verify.lossy import recording_of
from anyport.verify.verdict import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from anyport.bundle.lossy import LossyTask
    from anyport.bundle.reading import Bundle, GraphFile
    from anyport.runtime.session import Session
    from anyport.task.trials import Trial
    from anyport.verify.agreement import Measure, Recording

    OpenGraph = Callable[[GraphFile], Session]

# The exact graphs may lose this share of what the lossy ones may: other processors round otherwise, and a
# choice between two equally good tokens may flip. Two of 64 pictures exchanged lose three times as much.
EXACT_SHARE: Final = 0.1


def measure_task(
    bundle: Bundle, variant: str, open_graph: OpenGraph, wanted: Collection[str]
) -> dict[str, Evaluation]:
    """Let the task answer the samples of the proof.

    The exact graphs answer them, too: an answer that is recorded as exact and is not theirs is a failure.

    Args:
        bundle: Stays the caller's to close.
        variant: Whose metric is of the whole task.
        open_graph: Opens one of its graphs; those of one variant are open together.
        wanted: Parts.

    Returns:
        The same evaluation for each of these parts that is lossy.

    Raises:
        BundleError: The proof is not one of this task, or allows nearly everything.
        SessionError: A graph cannot be opened, or its numbers are not finite.
    """
    with ExitStack() as open_sessions:
        trial = _open(bundle, variant, open_graph, open_sessions)
        task, recording = _recorded(bundle, variant, trial)
        lossy = set(wanted) & set(task.parts)
        if not lossy:
            return {}
        found = _measured(recording, trial, variant)
    exact = _exact_variant(bundle)
    if exact is not None:
        with ExitStack() as open_sessions:
            trial = _open(bundle, exact, open_graph, open_sessions)
            theirs = _measured(recording, trial, variant, EXACT_SHARE)
        found = Evaluation((*found.measures, *_foreign(theirs, exact)))
    return dict.fromkeys(lossy, found)


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
    return open_trial(PartSessions(said.task, said.settings, parts, opened, bundle.read_bytes, bundle.path))


def _recorded(bundle: Bundle, variant: str, trial: Trial) -> tuple[LossyTask, Recording]:
    proof, arrays = read_lossy_proof(bundle, variant, form_of(trial.signature))
    metric, where = bundle.manifest.variants[variant].metric, f"{bundle.path}, variant {variant}"
    if proof.task is None or metric is None:
        raise BundleError("the proof judges no task, as the manifest says", where=where)
    recording = recording_of(proof.task.judged, arrays, trial.signature, metric.n_samples, where)
    for number, run in enumerate(recording.runs, start=1):
        if WRITTEN in run.feeds and not np.array_equal(run.feeds[WRITTEN], run.answers[TOKENS]):
            raise BundleError(f"run {number}: its exact tokens are not those that were written", where=where)
    return proof.task, recording


def _measured(recording: Recording, trial: Trial, variant: str, share: float = 1.0) -> Evaluation:
    try:
        return measure_agreement(recording, trial, share)
    except InputError as err:  # what a proof holds is no input of the user's
        raise BundleError(f"proof/{variant}.json: task: {err.what}") from err


def _exact_variant(bundle: Bundle) -> str | None:
    variants = bundle.manifest.variants
    exact = [name for name, entry in variants.items() if entry.metric is None]
    return min(exact, key=lambda name: name != bundle.manifest.default_variant, default=None)


def _foreign(theirs: Evaluation, exact: str) -> list[Measure]:
    """Return what the exact graphs answer otherwise than is recorded."""
    reason = f"the recorded answers are not those of the exact variant {exact}"
    return [replace(one, reason=reason) for one in theirs.measures if one.status is Status.FAIL]
