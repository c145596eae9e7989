"""A build that this machine cannot hold is refused before anything is loaded or written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from anyport.build.estimate import estimate_roughly
from anyport.build.room import free_memory_bytes
from anyport.bundle.disk import size_text
from anyport.errors import SourceError, UsageError
from anyport.source import checkpoint_of

if TYPE_CHECKING:
    from anyport.build.plan import BuildPlan

_CLEARLY: Final = 0.7  # of what is reckoned: memory is reckoned to a factor of 2 at the worst


def check_fits(plan: BuildPlan) -> None:
    """Refuse what the disk cannot hold, and what the memory clearly cannot, swap included.

    A source that is a function is not looked at: it would run twice.

    Raises:
        UsageError: With both figures, and with what needs less.
    """
    if checkpoint_of(plan.request) is None:
        return
    try:
        cost, ways = estimate_roughly(plan)
    except SourceError:  # the build says what is wrong with its source, and does what cannot be foreseen
        return
    if cost.files is not None and cost.files.absent:  # that comes first
        return
    if cost.disk_bytes > cost.free_bytes:
        raise UsageError(
            f"the bundle needs {size_text(cost.disk_bytes)} of disk, "
            f"and {size_text(cost.free_bytes)} are free",
            where=plan.output.name,
            do="; ".join((*replace(cost, ways=ways()).ways_out(("disk",)), "-o on another disk")),
        )
    free_bytes = free_memory_bytes(with_swap=True)
    if free_bytes is not None and _CLEARLY * cost.memory_bytes > free_bytes:
        raise UsageError(
            f"the build needs about {size_text(cost.memory_bytes)} of memory, "
            f"and {size_text(free_bytes)} are free, swap included",
            where=f"part {cost.largest_part}",
            do="; ".join((*replace(cost, ways=ways()).ways_out(("memory",)), "a machine with more memory")),
        )
