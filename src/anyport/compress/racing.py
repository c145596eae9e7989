"""The race of the second gate: candidates against the fastest level at which the original is proven."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from anyport.bench.inputs import bench_case, choose_sizes
from anyport.errors import CompressError, SessionError
from anyport.graph.equality import Judge
from anyport.graph.fastest import LEVELS, Contestant, RaceSettings, race
from anyport.tensors import Signature

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anyport.bench.pairing import PairedRatio
    from anyport.graph.equality import Equality
    from anyport.runtime import Optimization

LEVEL: Final[Optimization] = "all"  # integer operators are the runtime's own rewrites: below it there are few
_ORIGINAL: Final = "none"


@dataclass(frozen=True, slots=True)
class Rival:
    """A candidate in the race: its method, its file, and the number of its nodes."""

    text: str
    path: Path
    n_nodes: int


@dataclass(frozen=True, slots=True)
class RivalrySettings:
    """How the race is held.

    Attributes:
        equality: Inputs and axes, what proves a level of the original, and the case that is timed.
        levels: Of the original.
        race: How long the measurement may take.
    """

    equality: Equality
    levels: tuple[Optimization, ...] = LEVELS
    race: RaceSettings = field(default_factory=RaceSettings)


@dataclass(frozen=True, slots=True)
class Race:
    """What came of a race.

    Attributes:
        baseline: The level at which the original is proven and fastest.
        ratios: Method -> how many times faster than that, or why it cannot be opened or run.
        levels: Level -> how many times faster than the fastest proven one the original is.
    """

    baseline: Optimization
    ratios: Mapping[str, float | SessionError]
    levels: Mapping[Optimization, float | SessionError]


def race_rivals(graph: Path, n_nodes: int, rivals: Sequence[Rival], settings: RivalrySettings) -> Race:
    """Race the original, at every level, and the candidates.

    Raises:
        CompressError: The original is proven at no level.
        SessionError: It cannot be opened or run.
    """
    levels = dict.fromkeys((LEVEL, *settings.levels))
    originals = [Contestant(_ORIGINAL, graph, n_nodes, level) for level in levels]
    others = {Contestant(one.text, one.path, one.n_nodes, LEVEL): one.text for one in rivals}
    part = settings.equality.part
    signature = Signature(part.inputs, part.outputs, part.dims)
    case = settings.equality.timed or bench_case(signature, choose_sizes(signature, {}))
    measured = race([*originals, *others], case, part.inputs, settings.race)
    allowed = [one for one in originals if one.optimization in settings.levels]
    baseline = _proven(graph, settings.equality, allowed, measured)
    unit = _speed(measured[baseline])
    return Race(
        baseline.optimization,
        {text: _ratio(measured[one], unit) for one, text in others.items()},
        {one.optimization: _ratio(measured[one], unit) for one in originals},
    )


def _proven(
    graph: Path,
    equality: Equality,
    originals: Sequence[Contestant],
    measured: Mapping[Contestant, PairedRatio | SessionError],
) -> Contestant:
    """Return the fastest level at which the original is equal to the reference."""
    judge, reason = Judge(graph, equality), "no level was tried"
    for contestant in sorted(originals, key=lambda one: _speed(measured[one]), reverse=True):
        found = judge.judge(contestant.path, contestant.optimization)
        if found.status == "equal":
            return contestant
        reason = found.reason
    raise CompressError(
        f"there is no proven fp32 to be faster than: {reason}",
        where=graph.name,
        do="verify the model first: anyport verify FILE.onnx --against SOURCE",
    )


def _speed(found: PairedRatio | SessionError) -> float:
    return 0.0 if isinstance(found, SessionError) else found.median


def _ratio(found: PairedRatio | SessionError, unit: float) -> float | SessionError:
    return found if isinstance(found, SessionError) else found.median / unit
