"""The runs behind the release list: every case of the proof, the edges, and many runs in a row."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol, get_args, runtime_checkable

import numpy as np

from anyport.bench.blank import Blank
from anyport.bench.memory import anonymous_memory
from anyport.bundle import answers_of, case_of, open_arrays, read_proof
from anyport.bundle.proof import sample_of
from anyport.errors import AnyportError, SessionError, UsageError
from anyport.report.edges import Edge, edge_runs
from anyport.runtime import Optimization, SessionOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyport.bundle import Bundle, GraphFile, ProofCase, StoredArrays
    from anyport.runtime import Session

_MAX_SOAK_CASES: Final = 4
_MAX_SOAK_BYTES: Final = 64 << 20
_WARMUP_SHARE: Final = 0.2
MAX_REPEAT_ERROR: Final = 1e-3  # of the largest value: rounding differs by 1e-6, another draw by 1

_NO_FEEDS: Final = Blank("no case of the proof runs, or each has more than 16 MiB of inputs")


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """How a release list is gone through.

    Attributes:
        variant: The default variant if absent.
        n_runs: For the line about leaks.
        soak_s: After so many seconds it stops sooner.
        session: The provider that is asked for, and the limits under which the service will run.
        progress: Called with a step's name and one line.
    """

    variant: str | None = None
    n_runs: int = 300
    soak_s: float = 20.0
    session: SessionOptions = field(default_factory=SessionOptions)
    progress: Callable[[str, str], None] = lambda _step, _text: None

    def __post_init__(self) -> None:
        """Refuse numbers that test nothing."""
        if self.n_runs < 1 or not self.soak_s > 0:
            raise UsageError(f"{self.n_runs} runs in {self.soak_s:g} s show nothing", do="--runs 300")


@dataclass(frozen=True, slots=True)
class CaseRun:
    """One recorded case, run here.

    Attributes:
        case: What was recorded.
        problem: What went wrong; empty if an answer of the recorded form came out.
    """

    case: ProofCase
    problem: str


@dataclass(frozen=True, slots=True)
class Soak:
    """Memory without a file behind it, over many runs.

    Attributes:
        n_runs: After the warm-up.
        before_bytes: After the warm-up.
        middle_bytes: After half of the runs.
        after_bytes: After all of them.
    """

    n_runs: int
    before_bytes: int
    middle_bytes: int
    after_bytes: int


@dataclass(frozen=True, slots=True)
class Runs:
    """What the runs of one part gave.

    Attributes:
        cases: Every recorded case.
        repeat: What two runs of the smallest case differ by, empty if by rounding; or why there are none.
        edges: Runs at the edges of what the part takes, that the proof does not hold.
        soak: Memory over many runs, or why it was not measured.
        placement: Provider -> number of nodes; empty where the runtime does not tell.
        problems: What was asked for and kept the graph from opening, ``limit`` or ``provider`` -> why.
        options: How the sessions were opened, without that.
    """

    cases: tuple[CaseRun, ...]
    repeat: str | Blank
    edges: tuple[Edge, ...]
    soak: Soak | Blank
    placement: Mapping[str, int]
    problems: Mapping[str, str]
    options: SessionOptions


@runtime_checkable
class Placed(Protocol):
    """A session that knows who computes its nodes."""

    @property
    def nodes_by_provider(self) -> dict[str, int]:
        """Provider -> number of nodes."""


def run_part(
    bundle: Bundle,
    graph: GraphFile,
    settings: CheckSettings,
    open_graph: Callable[[GraphFile, SessionOptions], Session],
) -> Runs:
    """Run one part of a bundle in every way that the list asks for.

    Raises:
        SessionError: The graph does not open, without limits either.
    """
    recorded = read_proof(bundle).parts.get(graph.part_name, [])
    arrays = open_arrays(bundle)
    session, options, problems = _open(graph, _known_level(graph, settings.session), open_graph)
    try:
        settings.progress("runs", f"{len(recorded)} cases")
        cases = tuple(CaseRun(case, _problem(session, graph, case, arrays)) for case in recorded)
        feeds = _soak_feeds(graph, [one.case for one in cases if not one.problem], arrays)
        settings.progress("soak", f"up to {settings.n_runs} runs, {settings.soak_s:g} s")
        return Runs(
            cases=cases,
            repeat=_repeat(session, feeds),
            edges=edge_runs(bundle, graph, session, options),
            soak=soak(session, feeds, settings),
            placement=session.nodes_by_provider if isinstance(session, Placed) else {},
            problems=problems,
            options=options,
        )
    finally:
        session.close()


def _known_level(graph: GraphFile, asked: SessionOptions) -> SessionOptions:
    """Open a graph without the level that its manifest names, if there is none: a line of its own says so."""
    is_known = asked.optimization is not None or graph.entry.optimization in get_args(Optimization)
    return asked if is_known else replace(asked, optimization="all")


def _open(
    graph: GraphFile, asked: SessionOptions, open_graph: Callable[[GraphFile, SessionOptions], Session]
) -> tuple[Session, SessionOptions, dict[str, str]]:
    """Open a graph as asked, else without its memory limit, else on the CPU: the lines say what gave way."""
    problems: dict[str, str] = {}
    options = asked
    while True:
        try:
            return open_graph(graph, options), options, problems
        except SessionError as err:
            if options.memory_limit_bytes is not None:
                problems["limit"], options = err.what, replace(options, memory_limit_bytes=None)
            elif options.provider != "cpu":
                problems = {"provider": err.what}
                options = replace(asked, provider="cpu", memory_limit_bytes=None)
            else:
                raise


def _problem(session: Session, graph: GraphFile, case: ProofCase, arrays: StoredArrays) -> str:
    feeds = case_of(case, arrays).arrays(graph.part.input_specs())
    try:
        outputs = session.run(feeds)
    except AnyportError as err:
        return err.what
    for name, expected in answers_of(case, arrays).items():
        got, shape = outputs[name], tuple(case.shapes.get(name, expected.shape))
        if got.shape != shape:
            return f"output '{name}' is {list(got.shape)}, PyTorch gave {list(shape)}"
        if name in case.shapes:  # a sample of it is recorded
            got = sample_of(got, expected.size)
        if not np.isfinite(got).all() and np.isfinite(expected).all():
            return f"output '{name}' is not finite, PyTorch's answer is"
    return ""


def _soak_feeds(
    graph: GraphFile, cases: Sequence[ProofCase], arrays: StoredArrays
) -> list[dict[str, np.ndarray]]:
    """Return the inputs of a few cases of different sizes, the smallest first."""
    specs = graph.part.input_specs()
    by_sizes = {tuple(sorted(case.sizes.items())): case for case in reversed(cases)}
    made = [case_of(case, arrays) for case in by_sizes.values()]
    made.sort(key=lambda case: case.size_bytes(specs))
    small = [case for case in made if case.size_bytes(specs) <= _MAX_SOAK_BYTES // _MAX_SOAK_CASES]
    return [case.arrays(specs) for case in small[:_MAX_SOAK_CASES]]


def _repeat(session: Session, feeds: Sequence[Mapping[str, np.ndarray]]) -> str | Blank:
    if not feeds:
        return _NO_FEEDS
    first, second = session.run(feeds[0]), session.run(feeds[0])
    for name, array in first.items():
        one, other = array.astype(np.float64), second[name].astype(np.float64)
        largest = float(np.max(np.abs(one), initial=0.0, where=np.isfinite(one)))
        with np.errstate(invalid="ignore"):
            off = float(np.max(np.nan_to_num(np.abs(one - other)), initial=0.0))
        if off > MAX_REPEAT_ERROR * largest:
            return f"two runs on one input differ by {off:.2g} in output '{name}'"
    return ""


def soak(
    session: Session, feeds: Sequence[Mapping[str, np.ndarray]], settings: CheckSettings
) -> Soak | Blank:
    """Run again and again, in turn over a few inputs, and read the memory before, half-way and after.

    Args:
        session: Is run.
        feeds: In turn.
        settings: How often, and for how long at most.
    """
    if not feeds:
        return _NO_FEEDS
    started_s = time.monotonic()
    n_warmup = 0
    while n_warmup < _WARMUP_SHARE * settings.n_runs + len(feeds):
        session.run(feeds[n_warmup % len(feeds)])
        n_warmup += 1
        if time.monotonic() - started_s > _WARMUP_SHARE * settings.soak_s:
            break
    run_s = (time.monotonic() - started_s) / n_warmup
    n_half = max(1, min(settings.n_runs, int(settings.soak_s / max(run_s, 1e-9))) // 2)
    levels = [_held()]
    for _ in range(2):
        for number in range(n_half):
            session.run(feeds[number % len(feeds)])
        levels.append(_held())
    numbers = [level for level in levels if not isinstance(level, Blank)]
    if len(numbers) < len(levels):
        return next(level for level in levels if isinstance(level, Blank))
    return Soak(2 * n_half, *numbers)


def _held() -> int | Blank:
    gc.collect()
    return anonymous_memory()
