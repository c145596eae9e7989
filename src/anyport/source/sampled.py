"""PyTorch's answers, of which a few are measured in float64: for models whose every run takes minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.source.running import TorchReference
from anyport.verify import Answer, Floor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.cases import Case
    from anyport.recipe import Part
    from anyport.source.running import TorchSession

_HOW: Final = "the widest of PyTorch's floors in float64 on {} other cases, relative to the output"


class SampledReference:
    """Answers as `anyport.source.TorchReference` does for the first cases; for others in float32 alone.

    The floor of the others is the widest that was measured, as a share of the output. A case whose numbers
    are beyond the ordinary is always measured.

    Args:
        part: That answers.
        session: Runs it.
        n_float64: How many cases are measured.
    """

    def __init__(self, part: Part, session: TorchSession, n_float64: int) -> None:
        self._session = session
        self._measured = TorchReference(part, session)
        self._n_float64 = n_float64
        self._shares: dict[str, list[tuple[float, float]]] = {}
        self._known: dict[str, Mapping[str, np.ndarray]] = {}

    def keep(self, case: Case, outputs: Mapping[str, np.ndarray]) -> None:
        """Take PyTorch's float32 answer to a case, which is known from elsewhere."""
        self._known[case.name] = outputs

    def answer(self, case: Case) -> Answer:
        """Return PyTorch's answer to one case, and how far its float32 is from it, or may be."""
        n_known = min((len(found) for found in self._shares.values()), default=0)
        if case.kind == "boundary" or n_known < self._n_float64:
            answer = self._measured.answer(case)
            if case.kind != "boundary":
                self._note(answer)
            return answer
        single = self._known.pop(case.name, None) or self._session.run(case.arrays(self._session.inputs))
        floors = {name: self._floor(name, array) for name, array in single.items() if name in self._shares}
        return Answer(dict(single), floors)

    def _note(self, answer: Answer) -> None:
        for name, floor in answer.floors.items():
            largest, rms = _sizes(answer.outputs[name])
            if floor.is_finite and largest and rms:
                self._shares.setdefault(name, []).append((floor.max_abs / largest, floor.rms / rms))

    def _floor(self, name: str, array: np.ndarray) -> Floor:
        largest, rms = _sizes(array)
        widest = [max(column) for column in zip(*self._shares[name], strict=True)]
        return Floor(widest[0] * largest, widest[1] * rms, _HOW.format(len(self._shares[name])))


def _sizes(array: np.ndarray) -> tuple[float, float]:
    """Return the largest number of an array, and the root of its mean square."""
    wide = array.astype(np.float64)
    return float(np.max(np.abs(wide), initial=0.0)), float(np.sqrt(np.mean(wide**2))) if wide.size else 0.0
