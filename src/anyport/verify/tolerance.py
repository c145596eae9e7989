"""Every number that decides a verdict, with its reason; and the gates a user may add.

The multiples were fixed after measuring clean exports of ten architectures (12 cases each, ONNX Runtime with
its default optimizations): the worst was 2.2 floors in the largest error and 1.33 floors in the RMS error.
``bench/verdicts.py`` measures sixteen networks anew: transformers stay below 2.3 and 1.6, a GRU 2.6 and 2.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

from anyport.errors import UsageError

# 3 times the worst clean export seen; at 32 an attention head scaled by 1.02 would begin to slip through
MAX_ABS_MULTIPLE: Final = 8.0

# the RMS error averages luck away, so that it may be held tighter: 1.5 times the worst clean export seen
RMS_MULTIPLE: Final = 4.0

# The RMS of a few numbers is not an average but luck: two equally good float32 answers of a single number
# have errors more than 4 times apart in 15 % of all cases. Below this size the largest error decides.
MIN_RMS_ELEMENTS: Final = 32

# For the same reason the floor of a small output is not taken from one case alone: `anyport.verify.pooling`.
MAX_POOLED_ELEMENTS: Final = 1024

# An output must move at least this many floors over the cases: healthy networks move 3e4 to 4e5, a dead one
# 0.25.
MIN_OUTPUT_POWER: Final = 1.0e3

# A graph that ignores an input is off by the reaction to it, which must clearly exceed what passes: 8 times.
MIN_INPUT_POWER: Final = 8.0 * MAX_ABS_MULTIPLE

# The spacing of float32 at 1.0: no float32 answer can be promised to be closer than this to the exact one.
FLOAT32_EPSILON: Final = 2.0**-23

# The least normal float32. Runtimes may flush anything smaller to zero.
TINY: Final = 2.0**-126


def clear_margin(n_operations: int) -> float:
    """Return how far apart two scores must be for every processor to choose the same one.

    A floor is estimated here: each operation rounds by up to a spacing of the largest value, and they add up
    like a random walk. BLIP's logits, computed with and without ONNX Runtime's optimizations, were 0.5 to 1.1
    such floors apart at tiny size (243 operations), 0.3 to 0.5 at base size (1064 operations, logits of 80
    that differ by 1e-4). As for a tie in a verdict, each of the two may be off by `MAX_ABS_MULTIPLE` floors.

    >>> f"{clear_margin(1024):.2g}"
    '6.1e-05'

    Args:
        n_operations: Between the input and the scores.

    Returns:
        A share of the largest score.
    """
    return 2 * MAX_ABS_MULTIPLE * FLOAT32_EPSILON * math.sqrt(n_operations)


@dataclass(frozen=True, slots=True)
class Gates:
    """A user's own limits, on top of the floor rule; ``None`` means that there is none.

    ``rtol`` and ``atol`` together mean what they mean in numpy: ``|error| <= atol + rtol * |reference|``.

    Attributes:
        rtol: Largest error relative to each reference value.
        atol: Largest absolute error.
        mse: Largest mean of the squared error, per output and case.
        l2: Largest Euclidean length of the error, per output and case.
    """

    rtol: float | None = None
    atol: float | None = None
    mse: float | None = None
    l2: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that are no limits."""
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is not None and not (math.isfinite(limit) and limit >= 0):
                raise UsageError(f"gate {field.name} = {limit} is no limit", do="write a number from 0 on")

    @property
    def are_set(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, field.name) is not None for field in fields(self))
