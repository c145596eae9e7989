"""How many inputs go through a graph at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from anyport.axes import Axis
    from anyport.tensors import Dim

PREFERRED: Final = 16  # one batch has to fit in memory; a CPU gains little from more


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs ``start`` to ``stop`` (exclusive), followed by ``n_filling`` copies of the last one."""

    start: int
    stop: int
    n_filling: int = 0


def plan_batches(n_inputs: int, axis: Axis, sizes: Dim | None) -> tuple[Batch, ...]:
    """Cut inputs into batches whose sizes the graph takes.

    >>> from anyport.axes import parse_axis
    >>> plan_batches(5, parse_axis("2", "x"), None)[-1]
    Batch(start=4, stop=5, n_filling=1)

    Args:
        n_inputs: How many there are.
        axis: The batch axis of the graph's input.
        sizes: The sizes that it may have, where it is dynamic; ``None`` means any.
    """
    largest, step, least = _sizes(axis, sizes)
    batches = []
    for start in range(0, n_inputs, largest):
        stop = min(start + largest, n_inputs)
        size = max(least, -(-(stop - start) // step) * step)
        batches.append(Batch(start, stop, size - (stop - start)))
    return tuple(batches)


def _sizes(axis: Axis, sizes: Dim | None) -> tuple[int, int, int]:
    """Return the size to aim for, the step, and the least size."""
    if axis.is_fixed:
        fixed = axis.size({})
        return fixed, fixed, fixed
    if sizes is None:
        return PREFERRED, 1, 1
    aimed_at = max(sizes.low, min(sizes.high, PREFERRED - PREFERRED % sizes.step))
    return aimed_at, sizes.step, sizes.low
