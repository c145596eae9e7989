"""What of a task stays open under a memory limit, and how it is opened: said before anything is opened.

The limit bounds what onnxruntime takes of its own for the task: weights that are copied, and all that is
computed. Weights that stay in their file are not counted: the system drops these pages when memory is short
and reads them again (`anyport.runtime.onnxrt` says what else is not).

Three ways, the fastest first:

1. all parts are open together, their weights copied and packed, where these take half of the limit at most;
2. a part is opened when it is needed, after the one before was closed; weights copied, where they take half
   of the limit at most;
3. the same with the weights left in their file.

A part that needs more for computing than its way leaves goes on in the third, which leaves the most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from anyport.bundle.disk import size_text
from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.runtime import Weights
    from anyport.runtime.onnxfile import WeightSizes

How = Literal["together", "copied", "mapped"]

LEAST_COMPUTING_BYTES: Final = 16 << 20  # below, graphs of a few layers fail already
_SHARE: Final = 2  # the part of the limit that weights may take
_WORDS: Final[Mapping[How, str]] = {
    "together": "stays open, weights copied",
    "copied": "opened when needed, weights copied",
    "mapped": "opened when needed, weights stay in the file",
}


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How one part is opened.

    Attributes:
        how: Of the three ways.
        sizes: Of its weights.
    """

    how: How
    sizes: WeightSizes

    @property
    def weights(self) -> Weights:
        """What becomes of its weights."""
        return "mapped" if self.how == "mapped" else "copied"

    @property
    def copied_bytes(self) -> int:
        """How much of its weights is in memory of its own while it is open."""
        return self.sizes.mapped_bytes if self.how == "mapped" else self.sizes.copied_bytes

    def __str__(self) -> str:
        """Return it in words."""
        stays = self.sizes.total_bytes - self.sizes.mapped_bytes if self.how == "mapped" else 0
        numbers = f"{size_text(self.copied_bytes)} copied" + (
            f", {size_text(stays)} not" if stays > 0 else ""
        )
        return f"{_WORDS[self.how]} ({numbers})"


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How all parts are opened.

    Attributes:
        limit_bytes: Of copied weights and computing.
        parts: In the order in which the task names them.
    """

    limit_bytes: int
    parts: Mapping[str, PartPlan]

    @property
    def is_together(self) -> bool:
        """Whether all parts are open at once."""
        return all(part.how == "together" for part in self.parts.values())

    def lines(self) -> tuple[str, ...]:
        """Return a line for each part."""
        return tuple(f"memory   {name}: {part}" for name, part in self.parts.items())

    def relieved(self, name: str) -> MemoryPlan | None:
        """Return the plan after a part needed more for computing than it had; ``None``: nothing is left."""
        if self.parts[name].how == "mapped":
            return None
        parts = _one_at_a_time(self.sizes(), self.limit_bytes) if self.is_together else dict(self.parts)
        return replace(self, parts=parts | {name: replace(self.parts[name], how="mapped")})

    def sizes(self) -> dict[str, WeightSizes]:
        """Return the weights of each part."""
        return {name: part.sizes for name, part in self.parts.items()}

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {"limit_bytes": self.limit_bytes, "parts": {name: one.how for name, one in self.parts.items()}}


def plan_memory(sizes: Mapping[str, WeightSizes], limit_bytes: int, *, at_once: bool = True) -> MemoryPlan:
    """Choose how the parts of a task are opened.

    >>> from anyport.runtime.onnxfile import WeightSizes
    >>> sizes = {"eye": WeightSizes(10**4, 10**8), "brain": WeightSizes(10**6, 10**9)}
    >>> for line in plan_memory(sizes, 10**9).lines():
    ...     print(line)
    memory   eye: opened when needed, weights copied (100.0 MB copied)
    memory   brain: opened when needed, weights stay in the file (1.0 MB copied, 1.0 GB not)

    Args:
        sizes: Part -> its weights.
        limit_bytes: Of copied weights and computing.
        at_once: Whether the task needs all of them; where it does not, none waits open for another.

    Raises:
        UsageError: A part cannot even be opened within the limit.
    """
    for name, one in sizes.items():
        least_bytes = one.mapped_bytes + LEAST_COMPUTING_BYTES
        if limit_bytes < least_bytes:
            raise UsageError(
                f"the memory limit is {size_text(limit_bytes)}, "
                f"the part '{name}' needs {size_text(least_bytes)} to begin with",
                do="give more; what it computes usually needs much more than that",
            )
    copied_bytes = sum(one.copied_bytes for one in sizes.values())
    if at_once and copied_bytes * _SHARE <= limit_bytes:
        return MemoryPlan(limit_bytes, {name: PartPlan("together", one) for name, one in sizes.items()})
    return MemoryPlan(limit_bytes, _one_at_a_time(sizes, limit_bytes))


def _one_at_a_time(sizes: Mapping[str, WeightSizes], limit_bytes: int) -> dict[str, PartPlan]:
    return {
        name: PartPlan("copied" if one.copied_bytes * _SHARE <= limit_bytes else "mapped", one)
        for name, one in sizes.items()
    }
