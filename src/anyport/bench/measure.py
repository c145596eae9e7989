"""The measurement, in several orders of opening: interleaved rounds of everyone, batches; child processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import geometric_mean
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.bench.batches import measure_batches, plan_batches
from anyport.bench.blank import Blank
from anyport.bench.heat import BenchSettings, Heat, n_within, share
from anyport.bench.inputs import bench_case
from anyport.bench.lineups import balanced_rounds, line_ups
from anyport.bench.opening import Opening, measure_opening, order_for
from anyport.bench.pairing import PairSettings, Timings, require_visible, system_clocks, time_rounds
from anyport.bench.result import ContestResult, Row, Speedup, latency_of
from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyport.bench.batches import Throughput
    from anyport.bench.child import Order
    from anyport.bench.contest import Candidate, Contest
    from anyport.bench.pairing import Clocks

_N_REPEATS: Final = 5
_MIN_ROUNDS: Final = 9  # quartiles of fewer mean little
_MAX_ROUNDS: Final = 60
_LEAST_ROUNDS: Final = 3  # of one line-up
_MOST_ORDERS: Final = 60
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
class _LineUp:
    """What one order of opening gave; the batches are not measured in every one."""

    timings: Mapping[str, Timings]
    throughput: Mapping[str, Throughput] | Blank | None


@dataclass(frozen=True, slots=True)
class _Measured:
    """What all line-ups gave, before it becomes rows; of the names that ran in every one."""

    timings: Mapping[str, Timings]
    by_cpu: Speedups
    by_wall: Speedups
    throughput: Mapping[str, Throughput] | Blank
    openings: Mapping[str, Opening]
    blanks: Mapping[str, Blank]


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
        measured = _measure(Heat(contest, n_threads, settings, tools.clocks(n_threads)), tools)
        rows += [_row(candidate, n_threads, measured) for candidate in contest.candidates]
    return ContestResult(contest.part, contest.sizes, contest.base, tuple(rows))


def _measure(whole: Heat, tools: Instruments) -> _Measured:
    """Measure everyone in several orders of opening, each with its share of the time."""
    orders = line_ups(whole.contest.candidates)
    waiting = list(orders)
    done: list[_LineUp] = []
    blanks: dict[str, Blank] = {}
    while waiting:
        candidates = tuple(c for c in waiting.pop(0) if c.name not in blanks)
        contest = replace(whole.contest, candidates=candidates)
        heat = replace(whole, contest=contest, sessions={}, blanks={}, n_orders=len(orders))
        started_s = heat.clocks.wall.now()
        try:
            heat.open_all()
            if not done:
                n_cycles = choose_cycles(heat.clocks.wall.now() - started_s, len(orders), whole.settings)
                waiting += orders * (n_cycles - 1)
            heat.n_line_ups = len(done) + 1 + len(waiting)
            done.append(_run_line_up(heat, tools, len(done) + 1, with_batches=len(done) < len(orders)))
        finally:
            heat.close()
        blanks |= heat.blanks
    names = [c.name for c in whole.contest.candidates if c.name not in blanks]
    tools.progress("memory", f"{whole.settings.n_children} processes of each")
    openings = {c.name: _opening(whole, c, tools) for c in whole.contest.candidates if c.name in names}
    return _Measured(
        {name: _joined([one.timings[name] for one in done]) for name in names},
        *_speedups(
            replace(whole, n_orders=len(orders)),
            [{name: one.timings[name] for name in names} for one in done],
        ),
        _throughput([one.throughput for one in done if one.throughput is not None], names),
        openings,
        blanks,
    )


def choose_cycles(opening_s: float, n_orders: int, settings: BenchSettings) -> int:
    """Choose how often everyone takes every place: opening may take about half the time for the rounds.

    One opening of 67 MB of weights differs from the next by 5 % in speed, at the same place too: it is luck
    which pages a process gets. Only more openings average that away.

    >>> choose_cycles(0.01, 2, BenchSettings()), choose_cycles(0.8, 5, BenchSettings(budget_s=60.0))
    (30, 7)

    Args:
        opening_s: How long it takes to open everyone and run everyone once.
        n_orders: Of opening.
        settings: How much is measured.
    """
    n_affordable = int(settings.budget_s / (2 * n_orders * opening_s)) if opening_s > 0 else _MOST_ORDERS
    return max(1, min(n_affordable, _MOST_ORDERS // n_orders if n_orders > 1 else 1))


def _run_line_up(heat: Heat, tools: Instruments, number: int, *, with_batches: bool) -> _LineUp:
    """Measure those that are open; the batches once at every place."""
    feeds = heat.feeds(heat.contest.sizes)
    runs, round_s = heat.runs(feeds), heat.round_s(feeds)
    how = choose_rounds(round_s, heat)
    tell = tools.progress if number == 1 else _tell_nobody
    tell("bench", _headline(heat))
    tell("rounds", f"{how.n_rounds} rounds of {how.n_repeats} runs of each" + _every(heat.n_line_ups))
    timings = time_rounds(runs, how, heat.clocks)
    if not with_batches:
        return _LineUp(timings, None)
    plan = plan_batches(heat)
    measured = plan if isinstance(plan, Blank) else measure_batches(heat, plan, round_s, tell)
    return _LineUp(timings, measured)


def _tell_nobody(_step: str, _text: str) -> None:
    """Say nothing: every opening would say the same."""


def _headline(heat: Heat) -> str:
    noun = "thread" if heat.n_threads == 1 else "threads"
    return f"{heat.contest.part}, {heat.n_threads} {noun}: {', '.join(heat.sessions)}"


def _every(n_line_ups: int) -> str:
    return f", opened {n_line_ups} times in turning order" if n_line_ups > 1 else ""


def choose_rounds(round_s: float, heat: Heat) -> PairSettings:
    """Choose how often everyone runs, so that it takes about as long as was asked for.

    Args:
        round_s: How long one run of each takes, in seconds.
        heat: Whose settings count.
    """
    budget_s = heat.settings.budget_s / heat.n_line_ups
    least = max(share(_MIN_ROUNDS, heat.n_line_ups), _LEAST_ROUNDS)
    n_repeats = _N_REPEATS if round_s * _N_REPEATS * least <= budget_s else 1
    return PairSettings(
        n_rounds=n_within(
            budget_s, round_s * n_repeats, (least, max(share(_MAX_ROUNDS, heat.n_line_ups), least))
        ),
        n_repeats=n_repeats,
        warmup=_WARMUP,
        n_threads=heat.n_threads,
        seed=heat.settings.seed,
    )


def _joined(timings: Sequence[Timings]) -> Timings:
    """Return the times of all line-ups, run by run; their rounds may be of different lengths."""
    return Timings(
        np.concatenate([one.cpu_s.ravel() for one in timings]),
        np.concatenate([one.wall_s.ravel() for one in timings]),
    )


def _throughput(
    found: Sequence[Mapping[str, Throughput] | Blank], names: Sequence[str]
) -> Mapping[str, Throughput] | Blank:
    """Return the geometric mean over the line-ups; a blank where one of them has no number."""
    measured = [one for one in found if not isinstance(one, Blank)]
    if len(measured) < len(found):
        return next(one for one in found if isinstance(one, Blank))
    return {
        name: {size: _mean_rate([one[name][size] for one in measured]) for size in measured[0][name]}
        for name in names
    }


def _mean_rate(rates: Sequence[float | Blank]) -> float | Blank:
    numbers = [rate for rate in rates if not isinstance(rate, Blank)]
    if len(numbers) < len(rates):
        return next(rate for rate in rates if isinstance(rate, Blank))
    return geometric_mean(numbers)


def _speedups(heat: Heat, timings: Sequence[Mapping[str, Timings]]) -> tuple[Speedups, Speedups]:
    """Return the speedups by CPU time and by wall time."""
    by_wall = _ratios(heat, [{name: t.wall_s for name, t in one.items()} for one in timings])
    cpu_s = [{name: t.cpu_s for name, t in one.items()} for one in timings]
    try:
        for name, times_s in (entry for one in cpu_s for entry in one.items()):
            require_visible(name, times_s, heat.clocks.cpu)
    except UsageError as err:
        unseen: Speedups = dict.fromkeys(timings[0], Blank(err.what))
        return unseen, by_wall
    return _ratios(heat, cpu_s), by_wall


def _ratios(heat: Heat, times_s: Sequence[Mapping[str, np.ndarray]]) -> Speedups:
    """Return how many times faster than the base: median and quartiles of the rounds of all line-ups."""
    base, names = heat.contest.base, times_s[0]
    if base not in names:
        return dict.fromkeys(names, Blank(f"nothing to compare with: '{base}' does not run"))
    return {name: _speedup([_paired(one[base], one[name]) for one in times_s], heat) for name in names}


def _paired(base_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Return the ratio of each round, of the shortest repeats in it: float64[round]."""
    ratio: np.ndarray = base_s.min(axis=1) / times_s.min(axis=1)
    return ratio


def _speedup(found: Sequence[np.ndarray], heat: Heat) -> Speedup:
    low, median, high = np.percentile(balanced_rounds(found, heat.n_orders), [25, 50, 75])
    return Speedup(float(median), float(low), float(high))


def _opening(heat: Heat, candidate: Candidate, tools: Instruments) -> Opening:
    signature = heat.contest.signature
    case = bench_case(signature, heat.contest.sizes, heat.settings.seed)
    order = order_for(candidate.child, case, signature.inputs, heat.n_threads)
    return tools.opening(candidate.child.module, order, heat.settings.n_children)


def _row(candidate: Candidate, n_threads: int, measured: _Measured) -> Row:
    name = candidate.name
    why = measured.blanks.get(name)
    if why is not None:
        return Row(name, n_threads, *(why,) * 6, candidate.size_bytes)
    opening = measured.openings[name]
    timing = measured.timings[name]
    by_batch = measured.throughput
    return Row(
        name=name,
        n_threads=n_threads,
        latency=latency_of(timing.wall_s, timing.cpu_s),
        speedup_cpu=measured.by_cpu[name],
        speedup_wall=measured.by_wall[name],
        throughput=by_batch if isinstance(by_batch, Blank) else by_batch[name],
        load_s=opening.load_s,
        peak_bytes=opening.peak_bytes,
        size_bytes=candidate.size_bytes,
    )
