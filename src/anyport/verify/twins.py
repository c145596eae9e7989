"""Two sessions that are fed the same, one exact and one lossy: how alike their answers are, in passing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.verify.agreement import Losses, judge
from anyport.verify.metric import CosineSimilarity
from anyport.verify.padding import counted_positions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.runtime.session import Session
    from anyport.tensors import Signature, TensorSpec
    from anyport.verify.agreement import Measure

_LEAST_VECTOR: Final = 3  # two numbers have hardly a direction


@dataclass(slots=True)
class _Sum:
    """The losses of one output, run by run."""

    spec: TensorSpec
    n: int = 0
    total: float = 0.0
    worst: float = 0.0
    worst_run: int = 0
    failure: str = ""

    def add(self, exact: np.ndarray, got: np.ndarray | None, counted: np.ndarray | None) -> None:
        if self.failure:
            return
        if got is None or (got.dtype, got.shape) != (exact.dtype, exact.shape):
            form = "missing" if got is None else f"{got.dtype}{list(got.shape)}"
            self.failure = f"it is {form}, must be {exact.dtype}{list(exact.shape)}"
            return
        if not np.isfinite(got[np.isfinite(exact)]).all():
            self.failure = "it is NaN or infinite"
            return
        loss = CosineSimilarity().loss(exact, got, counted)
        if math.isnan(loss):
            return
        self.n, self.total = self.n + 1, self.total + loss
        if loss > self.worst:
            self.worst, self.worst_run = loss, self.n

    def losses(self) -> Losses:
        # the power of the samples is judged where the task answers: here they count as different
        return Losses(self.n, self.total / max(self.n, 1), self.worst, self.worst_run, math.inf, self.failure)


@dataclass(slots=True)
class TwinSession:
    """A session that answers as the candidate, and holds every answer against the exact one's.

    Nothing is kept but sums.

    Attributes:
        exact: Stays the caller's to close, and so does the other.
        candidate: Whose answers are given on.
        signature: Of the part.
    """

    exact: Session
    candidate: Session
    signature: Signature
    _sums: dict[str, _Sum] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with no runs."""
        self._sums = {spec.name: _Sum(spec) for spec in self.signature.outputs if _has_direction(spec)}

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` takes."""
        return self.signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` gives."""
        return self.signature.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run both, and return what the candidate answers."""
        exact, got = self.exact.run(feeds), self.candidate.run(feeds)
        for name, total in self._sums.items():
            counted = counted_positions(total.spec, self.signature.inputs, feeds)
            total.add(exact[name], got.get(name), counted)
        return got

    def close(self) -> None:
        """Do nothing: both sessions belong to who gave them."""

    def measures(
        self, part: str, limits: Mapping[str, CosineSimilarity], share: float
    ) -> tuple[Measure, ...]:
        """Judge each output of floats: the mean cosine over the runs.

        Args:
            part: Its name comes before that of the output.
            limits: Output -> how it is judged, where that is not the default.
            share: Of the allowed loss that may be used.
        """
        return tuple(
            # without losses: these runs are no samples of the task
            replace(
                judge(f"{part}/{name}", limits.get(name, CosineSimilarity()), one.losses(), share),
                losses=None,
            )
            for name, one in self._sums.items()
        )


def _has_direction(spec: TensorSpec) -> bool:
    if not spec.is_float or len(spec.axes) < 2:  # noqa: PLR2004 -- a number for each row has none
        return False
    last = spec.axes[-1]
    return not last.is_fixed or last.size({}) >= _LEAST_VECTOR
