"""Recording the exact answers that lossy graphs are held against, as small as they can be stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.errors import InputError, MismatchError
from anyport.tensors import check_feeds
from anyport.verify.agreement import (
    BUILD_SHARE,
    MIN_SAMPLES,
    Evaluation,
    Recording,
    Run,
    measure_agreement,
    relaxed,
)
from anyport.verify.narrowing import Widened, narrow
from anyport.verify.padding import is_batched

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anyport.runtime.session import Session
    from anyport.tensors import Signature, TensorSpec
    from anyport.verify.metric import Metric

MAX_SAMPLES: Final = 256
MAX_SAMPLE_BYTES: Final = 1 << 30  # of one run, widened


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """How much is recorded.

    Attributes:
        budget_bytes: For the arrays of all samples; the exact proof has as much. `MIN_SAMPLES` are kept even
            if they need more.
        most_bytes: What they may need then.
    """

    budget_bytes: int = 19_000_000
    most_bytes: int = 256 << 20


def record(
    reference: Session,
    samples: Iterable[Mapping[str, np.ndarray]],
    signature: Signature,
    metrics: Mapping[str, Metric],
    settings: RecordSettings | None = None,
) -> Recording:
    """Let the exact model answer samples, and keep both.

    Arrays are kept narrower where that is as good a sample (see `anyport.verify.narrowing`), and the model
    answers the narrowed inputs: what is measured here is what is measured everywhere.

    Args:
        reference: PyTorch, or a graph that was proven equal to it; stays the caller's to close.
        samples: Inputs as users will send them; not those that calibrated the lossy graph, if there are more.
        signature: Of the part.
        metrics: Output -> how it is judged, for every output.
        settings: How much; the defaults of `RecordSettings` if absent.

    Returns:
        About `MAX_SAMPLES` at most; fewer than `MIN_SAMPLES` only if there are no more.

    Raises:
        InputError: A sample does not fit, or `MIN_SAMPLES` of them are too large for any bundle.
        MismatchError: The model has no answer to an output.
    """
    limits = settings or RecordSettings()
    runs: list[Run] = []
    n_samples = n_bytes = 0
    for feeds in samples:
        if n_samples >= MAX_SAMPLES:
            break
        check_feeds(feeds, signature.inputs, signature.dims)
        run, size_bytes = _answered(reference, feeds, signature)
        n_bytes += size_bytes
        if n_bytes > (limits.budget_bytes if n_samples >= MIN_SAMPLES else limits.most_bytes):
            break
        runs.append(run)
        n_samples += samples_in(run, signature)
    if n_samples < MIN_SAMPLES and n_bytes > limits.most_bytes:
        raise InputError(
            f"{n_samples + 1} samples take {n_bytes} bytes, a bundle carries {limits.most_bytes} at most",
            do=f"give smaller samples: {MIN_SAMPLES} are needed",
        )
    return Recording(signature, dict(metrics), runs)


def n_recorded(
    reference: Session,
    feeds: Mapping[str, np.ndarray],
    signature: Signature,
    settings: RecordSettings | None = None,
) -> int:
    """Return how many samples of the size of this one `record` keeps, so that they can be chosen before.

    Args:
        reference: Answers it; stays the caller's to close.
        feeds: Of one sample.
        signature: Of the part.
        settings: As for `record`.

    Raises:
        InputError: The sample does not fit.
        MismatchError: The model has no answer to an output.
    """
    limits = settings or RecordSettings()
    check_feeds(feeds, signature.inputs, signature.dims)
    _, size_bytes = _answered(reference, feeds, signature)
    return min(MAX_SAMPLES, max(MIN_SAMPLES, limits.budget_bytes // max(1, size_bytes)))


def _answered(reference: Session, feeds: Mapping[str, np.ndarray], signature: Signature) -> tuple[Run, int]:
    """Return the narrowed run, and how many bytes it takes."""
    given = _narrowed({spec.name: feeds[spec.name] for spec in signature.inputs}, signature.inputs)
    found = reference.run(dict(given))
    missing = [spec.name for spec in signature.outputs if spec.name not in found]
    if missing:
        raise MismatchError(f"the reference does not answer the output '{missing[0]}'")
    answers = _narrowed({spec.name: found[spec.name] for spec in signature.outputs}, signature.outputs)
    size_bytes = sum(one.stored(name).nbytes for one in (given, answers) for name in one)
    return Run(given, answers), size_bytes


def _narrowed(arrays: Mapping[str, np.ndarray], specs: Iterable[TensorSpec]) -> Widened:
    stored = {name: np.ascontiguousarray(narrow(array)) for name, array in arrays.items()}
    return Widened(stored, {name: name for name in stored}, specs)


def samples_in(run: Run, signature: Signature) -> int:
    """Return how many samples a run holds: of a batch, each place is one."""
    sizes = [
        len(run.answers[spec.name]) if is_batched(spec, signature.inputs) else 1 for spec in signature.outputs
    ]
    return min(sizes, default=1)


def evaluate(recording: Recording, candidate: Session, user: Evaluation | None = None) -> Evaluation:
    """Judge a lossy graph at the build: the gate before it is written.

    Args:
        recording: The exact answers.
        candidate: Stays the caller's to close.
        user: What `UserMetric.compare` found of the same graph. It decides then, and the limits of the
            outputs are moved to what they reach (never beyond `anyport.verify.metric.laxest`), so that other
            machines hold the graph to that.
    """
    own = measure_agreement(recording, candidate, BUILD_SHARE)
    if user is None:
        return own
    if user.passed:
        own = relaxed(own, recording.metrics, BUILD_SHARE)
    return Evaluation((*user.measures, *own.measures))
