"""What a compressed graph of several is judged by: the task with this one in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from anyport.task.trials import TOKENS, WRITTEN
from anyport.verify import BUILD_SHARE, Evaluation, evaluate
from anyport.verify.twins import TwinSession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyport.runtime import Session
    from anyport.task.trials import Trial
    from anyport.tensors import Signature, TensorSpec
    from anyport.verify import CosineSimilarity, Recording


@dataclass(frozen=True, slots=True)
class TaskJudge:
    """Judges the graph of one part: the check of a `anyport.compress.compressing.CompressRequest`.

    Attributes:
        part: Its name.
        signature: Of the part.
        exact: The part's exact graph; stays the caller's to close.
        recording: The exact answers of the task.
        trial_with: Opens the trial with another session for this part; all others are exact.
        limits: Output of the part -> the cosine that is needed, where that is not the default.
    """

    part: str
    signature: Signature
    exact: Session
    recording: Recording
    trial_with: Callable[[Session], Trial]
    limits: Mapping[str, CosineSimilarity]

    def __call__(self, session: Session) -> Evaluation:
        """Judge an open graph; it stays the caller's to close.

        Returns:
            What the task answers, and how alike each output of the part is while it does.
        """
        twin = TwinSession(self.exact, session, self.signature)
        found = evaluate(self.recording, self.trial_with(twin))
        return Evaluation((*found.measures, *twin.measures(self.part, self.limits, BUILD_SHARE)))


@dataclass(slots=True)
class EqualTexts:
    """A trial that counts the texts which would be the exact ones, word by word, were they written freely.

    Attributes:
        trial: Who answers.
        n_equal: How many were equal.
        n_texts: How many there were; none for a task that does not write.
    """

    trial: Trial
    n_equal: int = 0
    n_texts: int = 0

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` takes."""
        return self.trial.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` gives."""
        return self.trial.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answer, and count."""
        found = self.trial.run(feeds)
        if WRITTEN in feeds:
            self.n_texts += 1
            self.n_equal += int(np.array_equal(found[TOKENS], feeds[WRITTEN]))
        return found

    def close(self) -> None:
        """Do nothing."""

    @property
    def line(self) -> str:
        """The count in words; empty for a task that does not write."""
        return f"{self.n_equal} of {self.n_texts} texts wholly equal" if self.n_texts else ""
