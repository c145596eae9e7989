"""Throughput: how many items a second at which batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.bench.blank import Blank
from anyport.bench.heat import n_within, share
from anyport.bench.inputs import batch_axis, default_batches
from anyport.bench.pairing import PairSettings, time_rounds
from anyport.errors import AnyportError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyport.bench.heat import Heat

_MIN_ROUNDS: Final = 3
_MAX_ROUNDS: Final = 30

Throughput = dict[int, float | Blank]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The batches that are tried: the name of their axis, their sizes, and the time for each of them."""

    axis: str
    sizes: tuple[int, ...]
    budget_s: float


def plan_batches(heat: Heat) -> BatchPlan | Blank:
    """Choose the batches."""
    axis = batch_axis(heat.contest.signature.inputs)
    if axis is None:
        return Blank("no dynamic axis is the first of every input: there is no batch")
    chosen = heat.settings.batches or default_batches(axis, heat.contest.signature.dims)
    sizes = tuple(sorted(set(chosen)))
    return BatchPlan(axis, sizes, heat.settings.budget_s / heat.n_orders / len(sizes))


def measure_batches(
    heat: Heat, plan: BatchPlan, round_s: float, progress: Callable[[str, str], None]
) -> dict[str, Throughput]:
    """Return name -> batch -> items per second.

    Args:
        heat: Those that are open.
        plan: What is tried, smallest first; what would take longer than all the time left is left out.
        round_s: How long one run of each takes at the contest's own sizes, in seconds.
        progress: Called with a step's name and one line.
    """
    found: dict[str, Throughput] = {name: {} for name in heat.sessions}
    item_s = round_s / heat.contest.sizes[plan.axis]
    left_s = heat.settings.budget_s / heat.n_orders
    for size in plan.sizes:
        # one run to see how long it takes, then rounds
        expected_s = item_s * size * (1 + share(_MIN_ROUNDS, heat.n_orders))
        if expected_s > left_s:
            late = Blank(
                f"batch {size} takes about {expected_s:.2g} s, {left_s:.2g} s are left: raise --seconds"
            )
            answers: dict[str, float | Blank] = dict.fromkeys(heat.sessions, late)
        else:
            progress("batch", f"{plan.axis} = {size}")
            start_s = heat.clocks.wall.now()
            answers = _items_per_s(heat, plan, size)
            left_s -= heat.clocks.wall.now() - start_s
        for name, answer in answers.items():
            found[name][size] = answer
    return found


def _items_per_s(heat: Heat, plan: BatchPlan, size: int) -> dict[str, float | Blank]:
    """Return name -> items per second at one batch; a blank for those that refuse it."""
    found: dict[str, float | Blank] = {}
    runs = heat.runs(heat.feeds({**heat.contest.sizes, plan.axis: size}))
    start_s = heat.clocks.wall.now()
    for name, run in list(runs.items()):
        try:
            run()
        except AnyportError as err:
            found[name] = Blank(f"batch {size}: {err.what}")
            del runs[name]
    once_s = heat.clocks.wall.now() - start_s
    bounds = share(_MIN_ROUNDS, heat.n_orders), share(_MAX_ROUNDS, heat.n_orders)
    n_rounds = n_within(plan.budget_s, once_s, bounds)
    how = PairSettings(n_rounds, 1, 0, heat.n_threads, heat.settings.seed)
    for name, timing in time_rounds(runs, how, heat.clocks).items():
        found[name] = size / float(np.median(timing.wall_s))
    return found
