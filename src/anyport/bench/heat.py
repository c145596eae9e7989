"""One contest with one number of threads: everyone open at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from anyport.bench.blank import Blank
from anyport.bench.inputs import bench_case
from anyport.errors import AnyportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from anyport.bench.contest import Contest
    from anyport.bench.pairing import Clocks
    from anyport.runtime import Session

_N_GUESSES: Final = 3  # threads that have slept make the first run tens of times longer
_SLOW_PART: Final = 0.1  # of the time for the rounds


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """How much is measured.

    Attributes:
        threads: Numbers of threads; each makes its own rounds.
        batches: For the throughput; the powers of two up to 32 if absent.
        budget_s: About how long the rounds of one contest and number of threads take; the batches again.
        n_children: Load time and memory are medians over so many processes.
        seed: Of the inputs and of the orders.
    """

    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] | None = None
    budget_s: float = 10.0
    n_children: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that measure nothing."""
        if not self.threads or min(self.threads) < 1 or len(set(self.threads)) < len(self.threads):
            raise UsageError(f"threads {list(self.threads)}: write different numbers from 1 on, such as 1,2")
        if self.batches is not None and (not self.batches or min(self.batches) < 1):
            raise UsageError(f"batches {list(self.batches)}: write numbers from 1 on, such as 1,8,32")
        if not self.budget_s > 0:
            raise UsageError(f"{self.budget_s:g} seconds are no time to measure in")
        if self.n_children < 1:
            raise UsageError(f"n_children = {self.n_children}: the least is 1")


@dataclass(slots=True)
class Heat:
    """The open sessions of a contest.

    Attributes:
        contest: Who is measured.
        n_threads: With how many threads.
        settings: How much.
        clocks: What is read.
        sessions: Name -> session, of those that open and run.
        blanks: Name -> why, of those that do not.
        n_line_ups: How often the same candidates are opened and measured; this is one of those times.
        n_orders: In how many orders; the batches are measured once in each.
    """

    contest: Contest
    n_threads: int
    settings: BenchSettings
    clocks: Clocks
    sessions: dict[str, Session] = field(default_factory=dict)
    blanks: dict[str, Blank] = field(default_factory=dict)
    n_line_ups: int = 1
    n_orders: int = 1

    def open_all(self) -> None:
        """Open everyone and run everyone once.

        Raises:
            AnyportError: Nobody opens and runs; what the first one said.
        """
        feeds = self.feeds(self.contest.sizes)
        first: AnyportError | None = None
        for candidate in self.contest.candidates:
            try:
                session = self.sessions[candidate.name] = candidate.open(self.n_threads)
                session.run(feeds)
            except AnyportError as err:
                first = first or err
                self._give_up(candidate.name, err)
        if first is not None and not self.sessions:
            raise first

    def runs(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Callable[[], object]]:
        """Return name -> a run on these inputs."""
        return {name: partial(session.run, feeds) for name, session in self.sessions.items()}

    def feeds(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Return inputs of these sizes."""
        signature = self.contest.signature
        return bench_case(signature, sizes, self.settings.seed).arrays(signature.inputs)

    def round_s(self, feeds: Mapping[str, np.ndarray]) -> float:
        """Return how long one run of everyone takes, in seconds: the least of a few, if they are quick."""
        runs = self.runs(feeds)
        least_s = float("inf")
        for _ in range(_N_GUESSES):
            start_s = self.clocks.wall.now()
            for run in runs.values():
                run()
            passed_s = self.clocks.wall.now() - start_s
            least_s = min(least_s, passed_s)
            if passed_s > _SLOW_PART * self.settings.budget_s:
                break
        return least_s

    def close(self) -> None:
        """Close everyone."""
        for session in self.sessions.values():
            session.close()

    def _give_up(self, name: str, err: AnyportError) -> None:
        self.blanks[name] = Blank(err.what)
        session = self.sessions.pop(name, None)
        if session is not None:
            session.close()


def share(n: int, n_parts: int) -> int:
    """Return the part of ``n``, rounded up.

    >>> share(9, 2)
    5
    """
    return -(-n // n_parts)


def n_within(budget_s: float, one_s: float, bounds: tuple[int, int]) -> int:
    """Return how many of ``one_s`` fit into a budget, within bounds.

    >>> n_within(10.0, 0.5, (9, 60)), n_within(10.0, 5.0, (9, 60)), n_within(10.0, 0.0, (9, 60))
    (20, 9, 60)
    """
    least, most = bounds
    return max(least, min(most, int(budget_s / one_s) if one_s > 0 else most))
