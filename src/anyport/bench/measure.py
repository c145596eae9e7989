"""The measurement: interleaved rounds of everyone, then batches, then child processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyport.bench.batches import measure_batches, plan_batches
from anyport.bench.blank import Blank
from anyport.bench.heat import Heat, n_within
from anyport.bench.inputs import bench_case
from anyport.bench.opening import Opening, measure_opening, order_for
from anyport.bench.pairing import PairSettings, ratios, require_visible, system_clocks, time_rounds
from anyport.bench.result import ContestResult, Row, Speedup, latency_of
from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from anyport.bench.batches import Throughput
    from anyport.bench.child import Order
    from anyport.bench.contest import Candidate, Contest
    from anyport.bench.heat import BenchSettings
    from anyport.bench.pairing import Clocks, Timings

_N_REPEATS: Final = 5
_MIN_ROUNDS: Final = 9  # quartiles of fewer mean little
_MAX_ROUNDS: Final = 60
_WARMUP: Final = 2

Speedups = dict[str, Speedup | Blank]


@dataclass(frozen=True, slots=True)
class Instruments:
    """What a measurement reads and asks; tests put in their own.

    Attributes:
        clocks: Number of threads -> clocks.
        opening: Module, order, number of processes -> what opening costs.
        progress: Called with a step's name and one line.
    """

    clocks: Callable[[int], Clocks] = system_clocks
    opening: Callable[[str, Order, int], Opening] = measure_opening
    progress: Callable[[str, str], None] = lambda _step, _text: None


@dataclass(frozen=True, slots=True)
class _Measured:
    """What one heat gave, before it becomes rows."""

    timings: Mapping[str, Timings]
    by_cpu: Speedups
    by_wall: Speedups
    throughput: Mapping[str, Throughput] | Blank
    openings: Mapping[str, Opening]


def bench(contest: Contest, settings: BenchSettings, instruments: Instruments | None = None) -> ContestResult:
    """Measure everyone in a contest.

    Args:
        contest: From `find_contests`.
        settings: How much.
        instruments: Other clocks and child processes than the system's.

    Raises:
        AnyportError: None of the candidates opens and runs.
    """
    tools = instruments or Instruments()
    rows: list[Row] = []
    for n_threads in settings.threads:
        heat = Heat(contest, n_threads, settings, tools.clocks(n_threads))
        measured = _measure(heat, tools)
        rows += [_row(heat, candidate, measured) for candidate in contest.candidates]
    return ContestResult(contest.part, contest.sizes, contest.base, tuple(rows))


def _measure(heat: Heat, tools: Instruments) -> _Measured:
    noun = "thread" if heat.n_threads == 1 else "threads"
    try:
        heat.open_all()
        names = ", ".join(heat.sessions)
        tools.progress("bench", f"{heat.contest.part}, {heat.n_threads} {noun}: {names}")
        feeds = heat.feeds(heat.contest.sizes)
        runs, round_s = heat.runs(feeds), heat.round_s(feeds)
        how = choose_rounds(round_s, heat)
        tools.progress("rounds", f"{how.n_rounds} rounds of {how.n_repeats} runs of each")
        timings = time_rounds(runs, how, heat.clocks)
        plan = plan_batches(heat)
        throughput = plan if isinstance(plan, Blank) else measure_batches(heat, plan, round_s, tools.progress)
    finally:
        heat.close()
    tools.progress("memory", f"{heat.settings.n_children} processes of each")
    openings = {c.name: _opening(heat, c, tools) for c in heat.contest.candidates if c.name in runs}
    return _Measured(timings, *_speedups(heat, timings), throughput, openings)


def choose_rounds(round_s: float, heat: Heat) -> PairSettings:
    """Choose how often everyone runs, so that it takes about as long as was asked for.

    Args:
        round_s: How long one run of each takes, in seconds.
        heat: Whose settings count.
    """
    budget_s = heat.settings.budget_s
    n_repeats = _N_REPEATS if round_s * _N_REPEATS * _MIN_ROUNDS <= budget_s else 1
    return PairSettings(
        n_rounds=n_within(budget_s, round_s * n_repeats, (_MIN_ROUNDS, _MAX_ROUNDS)),
        n_repeats=n_repeats,
        warmup=_WARMUP,
        n_threads=heat.n_threads,
        seed=heat.settings.seed,
    )


def _speedups(heat: Heat, timings: Mapping[str, Timings]) -> tuple[Speedups, Speedups]:
    """Return the speedups by CPU time and by wall time."""
    by_wall = _ratios(heat, {name: timing.wall_s for name, timing in timings.items()})
    cpu_s = {name: timing.cpu_s for name, timing in timings.items()}
    try:
        for name, times_s in cpu_s.items():
            require_visible(name, times_s, heat.clocks.cpu)
    except UsageError as err:
        unseen: Speedups = dict.fromkeys(timings, Blank(err.what))
        return unseen, by_wall
    return _ratios(heat, cpu_s), by_wall


def _ratios(heat: Heat, times_s: Mapping[str, np.ndarray]) -> Speedups:
    base = heat.contest.base
    if base not in times_s:
        return dict.fromkeys(times_s, Blank(f"nothing to compare with: '{base}' does not run"))
    return {name: Speedup(r.median, r.low, r.high) for name, r in ratios(times_s, base).items()}


def _opening(heat: Heat, candidate: Candidate, tools: Instruments) -> Opening:
    signature = heat.contest.signature
    case = bench_case(signature, heat.contest.sizes, heat.settings.seed)
    order = order_for(candidate.child, case, signature.inputs, heat.n_threads)
    return tools.opening(candidate.child.module, order, heat.settings.n_children)


def _row(heat: Heat, candidate: Candidate, measured: _Measured) -> Row:
    name = candidate.name
    why = heat.blanks.get(name)
    if why is not None:
        return Row(name, heat.n_threads, *(why,) * 6, candidate.size_bytes)
    opening = measured.openings[name]
    timing = measured.timings[name]
    by_batch = measured.throughput
    return Row(
        name=name,
        n_threads=heat.n_threads,
        latency=latency_of(timing.wall_s, timing.cpu_s),
        speedup_cpu=measured.by_cpu[name],
        speedup_wall=measured.by_wall[name],
        throughput=by_batch if isinstance(by_batch, Blank) else by_batch[name],
        load_s=opening.load_s,
        peak_bytes=opening.peak_bytes,
        size_bytes=candidate.size_bytes,
    )
