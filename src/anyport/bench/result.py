"""What was measured, as numbers: a row for each candidate and number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from anyport.bench.blank import Blank

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.bench.machine import Machine

_TAIL_RUNS: Final = 100  # the 99th percentile of fewer runs is their maximum, or a guess beyond it


@dataclass(frozen=True, slots=True)
class Latency:
    """Wall time of single runs, in seconds.

    Attributes:
        median_s: Half of the runs took longer.
        p90_s: One in ten took longer.
        p99_s: One in a hundred took longer.
        cpu_s: Median of the CPU time of a run, all its threads together.
        n_runs: How many runs there were.
    """

    median_s: float
    p90_s: float
    p99_s: float | Blank
    cpu_s: float
    n_runs: int


@dataclass(frozen=True, slots=True)
class Speedup:
    """How many times faster than the base: median over the rounds, and quartiles; above 1 is faster."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate with one number of threads.

    Attributes:
        name: Of the candidate.
        n_threads: With how many threads it was opened.
        latency: Of single runs.
        speedup_cpu: By CPU time: what it costs.
        speedup_wall: By wall time: what a user waits.
        throughput: Batch -> items per second.
        load_s: From the file to a session that can run, in a fresh process.
        peak_bytes: The most memory that opening and a run needed, in a fresh process.
        size_bytes: Graph and weights on the disk.
    """

    name: str
    n_threads: int
    latency: Latency | Blank
    speedup_cpu: Speedup | Blank
    speedup_wall: Speedup | Blank
    throughput: Mapping[int, float | Blank] | Blank
    load_s: float | Blank
    peak_bytes: int | Blank
    size_bytes: int | Blank


@dataclass(frozen=True, slots=True)
class ContestResult:
    """The rows of one contest.

    Attributes:
        part: What was measured.
        sizes: Of the named axes, for everything but the throughput.
        base: The candidate whose speedup is 1.
        rows: By number of threads, then in the order of the candidates.
    """

    part: str
    sizes: Mapping[str, int]
    base: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Everything that a bench found, and where."""

    machine: Machine
    contests: tuple[ContestResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it for programs: seconds, bytes, items per second; a blank is ``{"why": …}``."""
        record: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        return record


def latency_of(wall_s: np.ndarray, cpu_s: np.ndarray) -> Latency:
    """Summarize the times of single runs.

    Args:
        wall_s: Wall time of each run, in seconds; any shape.
        cpu_s: CPU time of each run, in seconds; any shape.
    """
    median, p90, p99 = (float(v) for v in np.percentile(wall_s, [50, 90, 99]))
    few = Blank(f"p99 needs {_TAIL_RUNS} runs, there were {wall_s.size}: raise --seconds")
    tail: float | Blank = p99 if wall_s.size >= _TAIL_RUNS else few
    return Latency(median, p90, tail, float(np.median(cpu_s)), wall_s.size)
