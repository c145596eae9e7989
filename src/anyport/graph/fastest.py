"""Which of several graphs, opened how, is the fastest here: measured in pairs, decided by one rule."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyport.bench.lineups import line_ups, mean_ratio
from anyport.bench.pairing import PairedRatio, PairSettings, paired_ratios
from anyport.errors import SessionError, UsageError, did_you_mean
from anyport.runtime import SessionOptions, open_session
from anyport.runtime.onnxfile import weight_sizes, weights_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from anyport.cases import Case
    from anyport.runtime import Optimization
    from anyport.tensors import TensorSpec

LEVELS: Final[tuple[Optimization, ...]] = (
    "all",
    "extended",
    "basic",
    "none",
)  # of equals, the first is taken
TIE: Final = 0.03  # paired CPU-time ratios are good to 1-3 % on a machine that others use too
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 7  # of a line-up
_ROUND_S: Final = 0.01  # of one graph: short runs are repeated until they fill this
_MOST_REPEATS: Final = 100


@dataclass(frozen=True, slots=True)
class Contestant:
    """One graph, opened in one way.

    Attributes:
        tool: Who wrote it; ``none`` is the original.
        path: The .onnx file.
        n_nodes: In the file.
        optimization: What the runtime may rewrite while it opens the file.
    """

    tool: str
    path: Path
    n_nodes: int
    optimization: Optimization

    @property
    def label(self) -> str:
        """Its name in a race."""
        return f"{self.tool}, {self.optimization}"


@dataclass(frozen=True, slots=True)
class RaceSettings:
    """How long a race may take.

    Attributes:
        budget_s: CPU time of all runs together, about; the least number of rounds may take more.
        open_bytes: Weights of the sessions that are open at once; two always are.
    """

    budget_s: float = 60.0
    open_bytes: int = 1 << 30


def race(
    contestants: Sequence[Contestant], case: Case, inputs: Sequence[TensorSpec], settings: RaceSettings
) -> dict[Contestant, PairedRatio | SessionError]:
    """Measure how many times faster than the first contestant each one is, on one thread.

    Args:
        contestants: The first is what the others are compared with.
        case: What every run computes.
        inputs: Of the graph.
        settings: How long it may take.

    Returns:
        A ratio, or why a graph cannot be opened or run in this way.

    Raises:
        SessionError: The first one cannot be opened or run.
    """
    feeds = case.arrays(inputs)
    base, *others = contestants
    sizes = weight_sizes(base.path)
    one_bytes = max(weights_size(base.path) + sizes.copied_bytes, 1)  # mapped, and packed for the kernels
    group_size = max(1, settings.open_bytes // one_bytes - 1)
    groups = [others[i : i + group_size] for i in range(0, len(others), group_size)] or [[]]
    found: dict[Contestant, PairedRatio | SessionError] = {}
    for group in groups:
        found |= _race_group(base, group, feeds, settings.budget_s / len(groups))
    return found


def _race_group(
    base: Contestant, group: Sequence[Contestant], feeds: Mapping[str, np.ndarray], budget_s: float
) -> dict[Contestant, PairedRatio | SessionError]:
    """Race one group in several line-ups, in each of which everyone is opened at another place."""
    found: dict[Contestant, list[PairedRatio]] = {}
    failed: dict[Contestant, SessionError] = {}
    orders = line_ups((base, *group))
    for order in orders:
        with ExitStack() as stack:
            runs = _open_all([c for c in order if c not in failed], feeds, stack, failed)
            if base in failed:
                raise failed[base]
            rounds = pair_settings(_seconds(runs[base]), len(runs), budget_s / len(orders))
            measured = paired_ratios({c.label: run for c, run in runs.items()}, base.label, rounds)
        for contestant in runs:
            found.setdefault(contestant, []).append(measured[contestant.label])
    means = {c: mean_ratio(ratios) for c, ratios in found.items() if c not in failed}
    return {**failed, **means}


def _open_all(
    order: Sequence[Contestant],
    feeds: Mapping[str, np.ndarray],
    stack: ExitStack,
    failed: dict[Contestant, SessionError],
) -> dict[Contestant, Callable[[], object]]:
    """Open graphs in this order; those that cannot be opened or run are noted in ``failed``."""
    runs = {}
    for contestant in order:
        try:
            runs[contestant] = _opened(contestant, feeds, stack)
        except SessionError as err:
            failed[contestant] = err
    return runs


def _opened(
    contestant: Contestant, feeds: Mapping[str, np.ndarray], stack: ExitStack
) -> Callable[[], object]:
    """Open a graph and run it once: what fails, fails before anything is measured."""
    options = SessionOptions(n_threads=1, optimization=contestant.optimization)
    session = open_session(contestant.path, options)
    stack.callback(session.close)
    session.run(feeds)
    return lambda: session.run(feeds)


def _seconds(run: Callable[[], object]) -> float:
    times_s = []
    for _ in range(2):
        started_s = time.thread_time()
        run()
        times_s.append(time.thread_time() - started_s)
    return max(min(times_s), 1e-6)


def pair_settings(run_s: float, n_runs: int, budget_s: float) -> PairSettings:
    """Choose rounds and repeats so that a line-up stays within its budget, where that leaves enough rounds.

    >>> pair_settings(run_s=0.0001, n_runs=4, budget_s=60).n_repeats
    100
    >>> pair_settings(run_s=1.0, n_runs=12, budget_s=60)
    PairSettings(n_rounds=5, n_repeats=1, warmup=1, n_threads=1, seed=0)
    """
    n_repeats = int(min(max(_ROUND_S / run_s, 1), _MOST_REPEATS))
    n_affordable = int(budget_s / (run_s * n_repeats * n_runs))
    return PairSettings(
        n_rounds=min(max(n_affordable, _LEAST_ROUNDS), _MOST_ROUNDS), n_repeats=n_repeats, warmup=1
    )


def ranked(measured: Mapping[Contestant, PairedRatio | SessionError]) -> tuple[Contestant, ...]:
    """Order contestants, the one to keep first.

    Who is within `TIE` of the fastest ties with it; of those the one with the fewest nodes is first, then the
    one that the runtime's default opens as well, then the original. The others follow by their ratio.
    """
    ratios = {c: r.median for c, r in measured.items() if not isinstance(r, SessionError)}
    best = max(ratios.values(), default=0.0)
    tied = [c for c, ratio in ratios.items() if ratio * (1 + TIE) >= best]
    tied.sort(key=lambda c: (c.n_nodes, LEVELS.index(c.optimization), c.tool != "none"))
    behind = sorted((c for c in ratios if c not in tied), key=lambda c: -ratios[c])
    return (*tied, *behind)


def levels_named(names: Iterable[str]) -> tuple[Optimization, ...]:
    """Return the levels of these names, in the order of `LEVELS`.

    >>> levels_named(["none", "all"])
    ('all', 'none')

    Raises:
        UsageError: There is no such level.
    """
    wanted = set(names)
    for name in sorted(wanted.difference(LEVELS)):
        raise UsageError(f"there is no optimization level '{name}'{did_you_mean(name, LEVELS)}")
    return tuple(level for level in LEVELS if level in wanted)
