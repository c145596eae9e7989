"""What a compressed graph is judged by: the exact answers to samples, and the user's own metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyport.runtime import SessionOptions, open_session
from anyport.verify import evaluate, record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anyport.compress.samples import Samples
    from anyport.runtime import Optimization, Session
    from anyport.tensors import Signature
    from anyport.verify import Evaluation, Metric, Recording, UserMetric


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges graphs by what the exact one answered: the check of a `CompressRequest`.

    Attributes:
        recording: The exact answers.
        user: The user's own metric; ``None`` if there is none.
        exact: What it says of the exact graph.
    """

    recording: Recording
    user: UserMetric | None = None
    exact: float = 0.0

    def __call__(self, session: Session) -> Evaluation:
        """Judge an open graph; it stays the caller's to close."""
        if self.user is None:
            return evaluate(self.recording, session)
        return evaluate(
            self.recording, session, self.user.compare(self.exact, self.user.measure(session.run))
        )


def judge_by(
    graph: tuple[Path, Optimization],
    samples: Samples,
    signature: Signature,
    metrics: Mapping[str, Metric],
    user: UserMetric | None,
) -> Judge:
    """Let the exact graph answer.

    Args:
        graph: The file, and the level at which it is proven.
        samples: Not those that set the ranges, if there are others.
        signature: Of the graph.
        metrics: Output -> how it is judged, for every output.
        user: The user's own metric.

    Raises:
        InputError: A sample does not fit.
        SourceError: The user's function fails.
    """
    path, level = graph
    session = open_session(path, SessionOptions(optimization=level))
    try:
        recording = record(session, samples, signature, metrics)
        return Judge(recording, user, 0.0 if user is None else user.measure(session.run))
    finally:
        session.close()
