"""Simplify a graph: try every tool, keep what is proven equal and not slower, and say what came of each.

No tool is trusted: it runs in a process with limits, what it wrote is checked and compared like any export,
and its speed is measured here. The original is always in the race, so that nothing can get worse.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyport.bench.inputs import bench_case, choose_sizes
from anyport.errors import SessionError
from anyport.graph.equality import Equality, Judge
from anyport.graph.fastest import LEVELS, TIE, Contestant, RaceSettings, race, ranked
from anyport.graph.rewriting import load_graph
from anyport.graph.simplification import Attempt, Simplification
from anyport.graph.simplifiers import ORIGINAL, SIMPLIFIERS
from anyport.graph.storing import move_graph, staged_graph
from anyport.graph.tooltrial import Candidate, Subject, TrialSettings, store_like
from anyport.tensors import Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anyport.bench.pairing import PairedRatio
    from anyport.graph.simplifiers import Simplifier
    from anyport.runtime import Optimization

    Progress = Callable[[str, str], None]
    Measured = Mapping[Contestant, PairedRatio | SessionError]

_DEFAULT_LEVEL: Final = "all"  # what the runtime does unasked: every ratio is against the original so opened


@dataclass(frozen=True, slots=True)
class SimplifySettings:
    """How a graph is simplified.

    Attributes:
        tools: What is tried, beside the original.
        levels: The runtime's optimization levels that are tried on every graph.
        trial: What the tools are given.
        race: How long the measurement may take.
    """

    tools: tuple[Simplifier, ...] = tuple(SIMPLIFIERS.values())
    levels: tuple[Optimization, ...] = LEVELS
    trial: TrialSettings = field(default_factory=TrialSettings)
    race: RaceSettings = field(default_factory=RaceSettings)


_DEFAULTS: Final = SimplifySettings()


def simplify_graph(
    path: Path, equality: Equality, settings: SimplifySettings = _DEFAULTS, progress: Progress | None = None
) -> Simplification:
    """Simplify a stored graph in its place, in its own layout.

    A ``modules.json`` beside it says which value names count as known; it stays as it is. The two files are
    replaced one after the other, so the folder should be one that nobody reads yet, as in a build.

    Args:
        path: ``model.onnx``, with its weights inside or beside it.
        equality: What the result is held against.
        settings: How.
        progress: Called with a tool's name and a line as it ends.

    Raises:
        SessionError: The original itself cannot be opened or run.
    """
    with _workshop(path.parent) as folder:
        subject = Subject(path, folder, path.name, settings.trial)
        found, kept = _simplify(subject, equality, settings, progress)
        if kept != path:
            move_graph(kept, path)
    return found


def simplify_file(
    files: tuple[Path, Path],
    equality: Equality,
    settings: SimplifySettings = _DEFAULTS,
    progress: Progress | None = None,
    *,
    force: bool = False,
) -> Simplification:
    """Simplify a plain .onnx file into another one.

    Weights lie inside the output if they lie inside the input, else beside it as safetensors.

    Args:
        files: The input, and the output.
        equality: What the result is held against.
        settings: How.
        progress: Called with a tool's name and a line as it ends.
        force: Replace an output that exists.

    Raises:
        SessionError: The original itself cannot be opened or run.
        UsageError: The output exists, or would replace a file that the input needs.
    """
    path, output = files
    with staged_graph(path, output, force=force) as staged, _workshop(staged) as folder:
        subject = Subject(path, folder, output.name, settings.trial)
        found, kept = _simplify(subject, equality, settings, progress)
        if kept == path:
            model = load_graph(path)
            store_like(model, model, staged / output.name)
        else:
            move_graph(kept, staged / output.name)
    return found


@contextmanager
def _workshop(place: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".simplify-", dir=place) as folder:
        yield Path(folder)


def _simplify(
    subject: Subject, equality: Equality, settings: SimplifySettings, progress: Progress | None
) -> tuple[Simplification, Path]:
    """Try everything; return what came of it, and the file to keep."""
    original = subject.original
    path = original.path or Path()
    candidates = [original]
    for tool in settings.tools:
        candidates.append(subject.attempt(tool))
        if progress is not None:
            progress(tool.name, _line(candidates[-1].attempt))
    judge = Judge(path, equality)
    candidates = [_judged(candidate, judge) for candidate in candidates]
    measured = _measured(candidates, equality, settings)
    chosen, reasons = _first_proven(ranked(measured), judge)
    tool_name, level = (chosen.tool, chosen.optimization) if chosen else (ORIGINAL, _DEFAULT_LEVEL)
    kept = next(c for c in candidates if c.attempt.tool == tool_name)
    attempts = [_with_ratio(c.attempt, measured, reasons) for c in candidates]
    winner = replace(_at_level(kept.attempt, measured, level), status="kept")
    attempts = [winner if a.tool == tool_name else _compared(a, winner) for a in attempts]
    found = Simplification(tool_name, level, chosen is not None, kept.operators or {}, tuple(attempts))
    return found, kept.path or path


def _line(attempt: Attempt) -> str:
    words: list[str] = [] if attempt.status == "equal" else [attempt.status]
    if attempt.n_nodes_after is not None:
        words.append(f"{attempt.n_nodes_before} -> {attempt.n_nodes_after} nodes")
    return "   ".join([*words, *([attempt.reason] if attempt.reason else [])])


def _judged(candidate: Candidate, judge: Judge) -> Candidate:
    """Compare a candidate without the runtime's own rewrites; what has no file stays as it is."""
    if candidate.path is None:
        return candidate
    found = judge.judge(candidate.path, "none")
    attempt = replace(candidate.attempt, status=found.status, largest_difference=found.largest_difference)
    return replace(candidate, attempt=replace(attempt, reason=found.reason or attempt.reason))


def _measured(candidates: Sequence[Candidate], equality: Equality, settings: SimplifySettings) -> Measured:
    """Race the original, and what is proven, at every level; the original at the default level is first."""
    levels = dict.fromkeys((_DEFAULT_LEVEL, *settings.levels))
    contestants = [
        Contestant(c.attempt.tool, c.path, c.attempt.n_nodes_after or 0, level)
        for c in candidates
        if c.path is not None and (c.attempt.status == "equal" or c.attempt.tool == ORIGINAL)
        for level in levels
        if level in settings.levels or c.attempt.tool == ORIGINAL
    ]
    part = equality.part
    signature = Signature(part.inputs, part.outputs, part.dims)
    case = equality.timed or bench_case(signature, choose_sizes(signature, {}))
    measured = race(contestants, case, part.inputs, settings.race)
    return {c: found for c, found in measured.items() if c.optimization in settings.levels}


def _first_proven(
    order: Sequence[Contestant], judge: Judge
) -> tuple[Contestant | None, dict[Contestant, str]]:
    """Return the first contestant that is equal as it would be opened, and why those before it are not."""
    reasons: dict[Contestant, str] = {}
    for contestant in order:
        found = judge.judge(contestant.path, contestant.optimization)
        if found.status == "equal":
            return contestant, reasons
        reasons[contestant] = found.reason
    return None, reasons


def _with_ratio(attempt: Attempt, measured: Measured, reasons: Mapping[Contestant, str]) -> Attempt:
    """Write the best ratio of a tool's graph into its attempt, at a level that is not known to be wrong."""
    own = {c: ratio for c, ratio in measured.items() if c.tool == attempt.tool and c not in reasons}
    failed = [reason for c, reason in reasons.items() if c.tool == attempt.tool]
    if failed:
        attempt = replace(attempt, reason=failed[0])
    order = ranked(own)
    return _at_level(attempt, measured, order[0].optimization) if order else attempt


def _at_level(attempt: Attempt, measured: Measured, level: Optimization) -> Attempt:
    for contestant, ratio in measured.items():
        if contestant.tool == attempt.tool and contestant.optimization == level:
            known = None if isinstance(ratio, SessionError) else ratio.median
            return replace(attempt, ratio=known, optimization=level)
    return attempt


def _compared(attempt: Attempt, winner: Attempt) -> Attempt:
    """Say why a proven graph was not kept."""
    if attempt.status != "equal" or attempt.ratio is None or winner.ratio is None:
        return attempt
    nodes = (attempt.n_nodes_after or 0) > (winner.n_nodes_after or 0)
    why = f"as fast as {winner.tool}" + (", which has fewer nodes" if nodes else "")
    if attempt.ratio * (1 + TIE) < winner.ratio:
        why = f"{winner.tool} is faster"
    return replace(attempt, reason=f"{attempt.reason}; {why}" if attempt.reason else why)
