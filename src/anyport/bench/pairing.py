"""Which of several runs is faster, on a machine that others use too: paired ratios of CPU time.

Measured on two shared cores: repeated wall-clock latencies of one network spread by 15 to 30 %, paired ratios
of CPU time by 1 to 3 %. Four habits make the difference:

* *CPU time, not wall time*: what the run consumed, not how long it waited for a core. One thread is read by
  the clock of that thread; several by the clock of the process, which also counts threads that spin while
  they wait: it says what a run costs, and the wall time beside it how long a user waits.
* *Interleaved rounds*: each round runs everyone once, so that a slow minute (another tenant, a lower clock
  frequency) hits all of them alike. The ratio is formed within the round; the median is taken over rounds.
* *A shuffled order*: whoever runs after a large neighbour finds a cold cache; no one may always be the one.
* *The least of a few repeats* within a round: what disturbs a run only ever makes it longer.

A ratio whose quartiles enclose 1 is a tie.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.cases import splitmix64
from anyport.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# fewer ticks than this are a rounding error: one of 50 is 2 %, the noise that paired ratios have anyway
_MIN_TICKS: Final = 50


@dataclass(frozen=True, slots=True)
class PairSettings:
    """How often everyone runs.

    Attributes:
        n_rounds: Rounds; each gives one ratio. Quartiles want at least 9.
        n_repeats: Runs of each in a round, of which the shortest counts.
        warmup: Runs of each before the first round, not counted: allocators and caches fill in them.
        n_threads: Threads that a run computes with; above 1 the time of the whole process is read.
        seed: Chooses the orders.
    """

    n_rounds: int = 15
    n_repeats: int = 3
    warmup: int = 3
    n_threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that measure nothing."""
        for field in fields(self):
            least = 0 if field.name in {"warmup", "seed"} else 1
            if getattr(self, field.name) < least:
                raise UsageError(f"{field.name} = {getattr(self, field.name)}: the least is {least}")


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock to read: ``now`` in seconds, and the step in which it goes forward."""

    now: Callable[[], float]
    resolution_s: float


@dataclass(frozen=True, slots=True)
class Clocks:
    """The two clocks that every run is read by."""

    cpu: Clock
    wall: Clock


@dataclass(frozen=True, slots=True)
class Timings:
    """The times of one run's repeats.

    Attributes:
        cpu_s: CPU time in seconds: float64[round, repeat].
        wall_s: Wall time of the same runs: float64[round, repeat].
    """

    cpu_s: np.ndarray
    wall_s: np.ndarray


@dataclass(frozen=True, slots=True)
class PairedRatio:
    """How many times faster than the base a run is; above 1 is faster.

    Attributes:
        median: Median over the rounds of base's time / this run's time.
        low: Lower quartile of the same.
        high: Upper quartile of the same.
        cpu_s: Median over the rounds of this run's own CPU time, in seconds.
    """

    median: float
    low: float
    high: float
    cpu_s: float

    @property
    def is_tie(self) -> bool:
        """Whether the quartiles enclose 1."""
        return self.low <= 1.0 <= self.high


def system_clocks(n_threads: int) -> Clocks:
    """Return the clock of this thread, or of the process when a run has several threads; and the wall's."""
    cpu = (
        Clock(time.thread_time, time.get_clock_info("thread_time").resolution)
        if n_threads == 1
        else Clock(time.process_time, time.get_clock_info("process_time").resolution)
    )
    return Clocks(cpu, Clock(time.perf_counter, time.get_clock_info("perf_counter").resolution))


def paired_ratios(
    runs: Mapping[str, Callable[[], object]],
    base: str,
    settings: PairSettings | None = None,
    clocks: Clocks | None = None,
) -> dict[str, PairedRatio]:
    """Run everyone in interleaved rounds and say how many times faster than ``base`` each is.

    The cost is ``(warmup + n_rounds * n_repeats)`` calls of each run, in this thread.

    >>> short, long = (lambda: sum(range(20_000))), (lambda: sum(range(80_000)))
    >>> paired_ratios({"short": short, "long": long}, "long")["short"].median > 2
    True

    Args:
        runs: What to call, by name.
        base: The name that the others are compared with; its own ratio is 1.
        settings: How often.
        clocks: What to read instead of the system's clocks.

    Returns:
        Name -> ratio, in the order of ``runs``.

    Raises:
        UsageError: ``base`` is none of the runs, or a run is too short for the clock.
    """
    if base not in runs:
        raise UsageError(f"there is no run '{base}' to compare with{did_you_mean(base, runs)}")
    settings = settings or PairSettings()
    clocks = clocks or system_clocks(settings.n_threads)
    timings = time_rounds(runs, settings, clocks)
    for name, timing in timings.items():
        require_visible(name, timing.cpu_s, clocks.cpu)
    return ratios({name: timing.cpu_s for name, timing in timings.items()}, base)


def time_rounds(
    runs: Mapping[str, Callable[[], object]], settings: PairSettings, clocks: Clocks | None = None
) -> dict[str, Timings]:
    """Run everyone in interleaved, shuffled rounds and return all times, in the order of ``runs``."""
    clocks = clocks or system_clocks(settings.n_threads)
    names = list(runs)
    for name in names:
        for _ in range(settings.warmup):
            runs[name]()
    shape = (settings.n_rounds, settings.n_repeats)
    timings = {name: Timings(np.zeros(shape), np.zeros(shape)) for name in names}
    for number in range(settings.n_rounds):
        for name in shuffled(names, settings.seed, number):
            for repeat in range(settings.n_repeats):
                cpu_s, wall_s = _time(runs[name], clocks)
                timings[name].cpu_s[number, repeat] = cpu_s
                timings[name].wall_s[number, repeat] = wall_s
    return timings


def ratios(times_s: Mapping[str, np.ndarray], base: str) -> dict[str, PairedRatio]:
    """Form the ratios within each round.

    Args:
        times_s: Name -> seconds, float64[round, repeat]; all CPU time, or all wall time.
        base: The name that the others are compared with.
    """
    best = {name: times.min(axis=1) for name, times in times_s.items()}
    found = {}
    for name, seconds in best.items():
        low, median, high = (float(v) for v in np.percentile(best[base] / seconds, [25, 50, 75]))
        found[name] = PairedRatio(median, low, high, float(np.median(seconds)))
    return found


def shuffled(names: Sequence[str], seed: int, number: int) -> list[str]:
    """Return the order of one round: the same for a seed and a round on every machine."""
    # every round gets words of its own: 2^20 is more than the runs that anyone compares
    words = splitmix64(seed + (number << 20), len(names))
    return [names[place] for place in np.argsort(words, kind="stable")]


def require_visible(name: str, times_s: np.ndarray, clock: Clock) -> None:
    """Check that the clock saw every run of one name.

    Raises:
        UsageError: A run is too short for it.
    """
    least_s = float(times_s.min())
    if least_s <= 0 or least_s < _MIN_TICKS * clock.resolution_s:
        raise UsageError(
            f"run '{name}' took {least_s:.3g} s of CPU time, too little for a clock"
            f" that goes in steps of {clock.resolution_s:.3g} s",
            do="measure a larger input, or several calls as one run",
        )


def _time(run: Callable[[], object], clocks: Clocks) -> tuple[float, float]:
    """Return CPU and wall time of one call; the CPU clock, which is compared, is read innermost."""
    wall_start = clocks.wall.now()
    cpu_start = clocks.cpu.now()
    run()
    cpu_s = clocks.cpu.now() - cpu_start
    return cpu_s, clocks.wall.now() - wall_start
