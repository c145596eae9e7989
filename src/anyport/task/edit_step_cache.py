"""Steps that are not computed: where the velocity hardly changes, the last one is used again.

The rule is that of EasyCache (Zhou et al. 2025, "Less is Enough: Training-Free Video Diffusion Acceleration
via Runtime-Adaptive Caching"), a relative of TeaCache (Liu et al., CVPR 2025) that looks at what the
transformer takes and gives alone, and so needs no second graph. How much the velocity changes for a change of
the latents is measured between computed steps; what a step would change is foretold by it and added up, and
as long as the sum stays below a threshold, nothing is computed. What is used again is the velocity after
guidance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_IN_A_ROW: Final = 3  # reused steps between two computed ones: what is foretold is good for a few


@dataclass(slots=True)
class StepCache:
    """What is remembered between the steps of one picture.

    Attributes:
        threshold: Largest sum of relative changes of the velocity that is let pass; 0 computes every step.
        n_steps: How many there are; the first two and the last are always computed.
        n_computed: How many were.
    """

    threshold: float
    n_steps: int
    n_computed: int = 0
    _n_seen: int = 0
    _n_reused: int = 0
    _passed: float = 0.0
    _rate: float | None = None  # of the velocity's change to the latents' change, both as sums of magnitudes
    _before: np.ndarray | None = None  # latents at the step before
    _computed: tuple[np.ndarray, np.ndarray] | None = None  # latents and velocity, when last computed

    def velocity(self, latents: np.ndarray, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the velocity of the next step: computed, or the last one.

        Args:
            latents: Those of the answer, before the step.
            compute: Runs the transformer, once or twice.
        """
        self._n_seen += 1
        reused = self._reusable(latents)
        self._before = latents
        if reused is not None:
            self._n_reused += 1
            return reused
        found = compute()
        if self._computed is not None:
            old_latents, old_velocity = self._computed
            self._rate = _ratio(_size(found - old_velocity), _size(latents - old_latents))
        self._computed = latents, found
        self._n_reused, self._passed = 0, 0.0
        self.n_computed += 1
        return found

    def _reusable(self, latents: np.ndarray) -> np.ndarray | None:
        if self._computed is None or self._rate is None or self._before is None:
            return None
        if self._n_seen == self.n_steps or self._n_reused == MOST_IN_A_ROW:
            return None
        velocity = self._computed[1]
        self._passed += self._rate * _ratio(_size(latents - self._before), _size(velocity))
        return velocity if self._passed < self.threshold else None


def _size(array: np.ndarray) -> float:
    return float(np.abs(array).sum(dtype=np.float64))


def _ratio(change: float, whole: float) -> float:
    """Return the quotient; of nothing, nothing is known."""
    return change / whole if whole else float("inf")
