"""Compress a graph: make every candidate, race them, and keep the best one that passes the three gates.

A candidate is not trusted: what it did is read from the file that it wrote, its speed is measured against the
fastest proven fp32 of the same race, and its answers are judged by the caller's check.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Literal, Protocol

from anyport.compress.candidate import Candidate, Unmade, best_of, final_trial, refusal
from anyport.compress.compression import Compression
from anyport.compress.gates import check_did_something, check_faster, check_metric, is_faster, read_facts
from anyport.compress.methods import Int8Static, candidates
from anyport.compress.quantizing import Quantized, find_ranges, quantize
from anyport.compress.racing import LEVEL, Rival, RivalrySettings, race_rivals
from anyport.errors import CompressError, ExportError, SessionError, SourceError
from anyport.graph.fastest import LEVELS, TIE, RaceSettings
from anyport.graph.storing import move_graph, staged_graph
from anyport.runtime import Session, SessionOptions, open_session
from anyport.verify.agreement import Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anyport.compress.compression import Trial
    from anyport.compress.methods import Method, Ranges
    from anyport.compress.racing import Race
    from anyport.compress.ranges import Range
    from anyport.compress.samples import Samples
    from anyport.graph.equality import Equality
    from anyport.runtime import Optimization

Check = Callable[[Session], Evaluation]
"""Judges the answers of an open graph; the session stays the caller's to close."""
Progress = Callable[[str, str], None]

_STEP: Final = "compress"
_SAME_SIZE: Final = 1.02  # sizes within this are equal to who asks for size


class Quantizer(Protocol):
    """What makes a candidate: `anyport.compress.quantizing.quantize`."""

    def __call__(
        self,
        graph: Path,
        method: Method,
        samples: Samples | None,
        output: Path,
        ranges: Mapping[str, Range] | None = None,
    ) -> Quantized:
        """Write a smaller graph."""


@dataclass(frozen=True, slots=True)
class CompressRequest:
    """What is asked for.

    Attributes:
        method: The notation of `anyport.compress.methods`.
        equality: The graph's inputs and axes, and what proves a level of the original.
        check: The third gate; called once for each candidate that passed the first two, the fastest first.
        calibration: Samples that set the ranges; not those of the check.
        prefer: ``speed`` refuses what is not faster; ``size`` keeps it, and the summary says so.
        levels: Of the original; the fastest proven one is what candidates are held against.
        race: How long the measurement may take.
        quantizer: Who makes the candidates.
    """

    method: str
    equality: Equality
    check: Check
    calibration: Samples | None = None
    prefer: Literal["size", "speed"] = "speed"
    levels: tuple[Optimization, ...] = LEVELS
    race: RaceSettings = field(default_factory=RaceSettings)
    quantizer: Quantizer = quantize


def compress_graph(
    graph: Path, output: Path, request: CompressRequest, progress: Progress | None = None
) -> Compression:
    """Compress a graph.

    Memory: one float weight while candidates are made; two open graphs while they race.

    Args:
        graph: The .onnx file; it is only read.
        output: Where the kept graph goes, its weights inside or beside it as the original's; in an existing
            folder, in which the work is done.
        request: What is asked for.
        progress: Called with a step and a line.

    Raises:
        CompressError: No candidate passes the gates; nothing is written then. It speaks of the one that got
            furthest, and lists the others. What goes wrong with one candidate costs no other one.
        UsageError: The notation is not understood, or the method needs samples.
        SessionError: The original cannot be opened or run.
    """
    with TemporaryDirectory(prefix=".compress-", dir=output.parent) as folder:
        work = _Work(graph, request, progress)
        found = work.compressed(Path(folder), output.name)
        move_graph(Path(folder) / folder_name(found.kept) / output.name, output)
    return found


def compress_file(
    files: tuple[Path, Path],
    request: CompressRequest,
    progress: Progress | None = None,
    *,
    force: bool = False,
) -> Compression:
    """Compress a plain .onnx file into another: both of its files appear whole, or not at all.

    Args:
        files: What is read, and what is written.
        request: What is asked for.
        progress: Called with a step and a line.
        force: Replace what is there.

    Raises:
        CompressError: As `compress_graph`.
        UsageError: The output exists.
    """
    graph, output = files
    with staged_graph(graph, output, force=force) as staged:
        return compress_graph(graph, staged / output.name, request, progress)


class _Work:
    def __init__(self, graph: Path, request: CompressRequest, progress: Progress | None) -> None:
        self._graph = graph
        self._request = request
        self._progress = progress
        self._original = read_facts(graph)
        self._ranges: dict[Ranges, dict[str, Range] | CompressError] = {}

    def _say(self, method: str, line: str) -> None:
        if self._progress is not None:
            self._progress(_STEP, f"{method}: {line}")

    def compressed(self, folder: Path, name: str) -> Compression:
        """Make, race and judge; return what came of it."""
        attempts = [self._attempt(method, folder, name) for method in self._methods()]
        made = [one for one in attempts if isinstance(one, Candidate)]
        unmade = [one for one in attempts if isinstance(one, Unmade)]
        rivals = [Rival(one.text, one.quantized.path, one.facts.n_nodes) for one in made if one.error is None]
        if not rivals:
            raise refusal(attempts)
        request = self._request
        found = race_rivals(
            self._graph,
            self._original.n_nodes,
            rivals,
            RivalrySettings(request.equality, request.levels, request.race),
        )
        timed = [self._timed(one, found) for one in made]
        tried = list(self._judged(timed))
        winner = best_of(tried)
        if winner is None or winner.evaluation is None:
            raise refusal([*tried, *unmade])
        trials = [final_trial(one, winner) for one in tried] + [final_trial(one, winner) for one in unmade]
        return self._kept(winner, winner.evaluation, found.baseline, tuple(trials))

    def _kept(
        self, winner: Candidate, evaluation: Evaluation, baseline: Optimization, trials: tuple[Trial, ...]
    ) -> Compression:
        calibration = self._request.calibration
        is_static = isinstance(winner.method, Int8Static) and calibration is not None
        return Compression(
            kept=winner.text,
            optimization=LEVEL,
            size_before_bytes=self._original.size_bytes,
            size_bytes=winner.facts.size_bytes,
            ratio=winner.ratio,
            baseline=baseline,
            is_faster=is_faster(winner.ratio),
            evaluation=evaluation,
            operators=winner.facts.operators,
            kept_float=winner.quantized.kept_float,
            trials=trials,
            calibrated_on=calibration.name if is_static and calibration is not None else "",
        )

    def _methods(self) -> tuple[Method, ...]:
        """Return the candidates; static ones need samples, and are left out where others do not."""
        found = candidates(self._request.method, self._original.operators)
        free = tuple(method for method in found if not isinstance(method, Int8Static))
        if self._request.calibration is not None or not free or free == found:
            return found
        self._say("int8-static", "left out, it needs samples: --calibrate")
        return free

    def _attempt(self, method: Method, folder: Path, name: str) -> Candidate | Unmade:
        """Make a candidate; one that cannot be made costs no other one."""
        try:
            return self._made(method, folder, name)
        except (CompressError, ExportError, SessionError) as err:
            self._say(method.text, f"cannot be made: {err.what}")
            what = f"{method.text} cannot be made: {err.what}"
            return Unmade(method, CompressError(what, where=self._graph.name, do=err.do))

    def _made(self, method: Method, folder: Path, name: str) -> Candidate:
        """Make a candidate and put it through the first gate."""
        place = folder / folder_name(method.text)
        place.mkdir()
        request, ranges = self._request, self._ranges_for(method, folder)
        quantized = request.quantizer(self._graph, method, request.calibration, place / name, ranges)
        made = Candidate(method, quantized, read_facts(quantized.path))
        try:
            check_did_something(self._original, made.facts, quantized)
        except CompressError as err:
            return replace(made, status="nothing", error=err)
        self._say(made.text, f"{self._original.size_bytes / made.facts.size_bytes:.2f}x smaller")
        return made

    def _ranges_for(self, method: Method, folder: Path) -> Mapping[str, Range] | None:
        if not isinstance(method, Int8Static):
            return None
        if method.ranges not in self._ranges:
            self._ranges[method.ranges] = self._found_ranges(method, folder)
        found = self._ranges[method.ranges]
        if isinstance(found, CompressError):
            raise found
        return found

    def _found_ranges(self, method: Int8Static, folder: Path) -> dict[str, Range] | CompressError:
        try:
            return find_ranges(self._graph, method, self._request.calibration, folder, self._progress)
        except CompressError as err:  # samples that give no ranges give none to the other flavours
            return err

    def _timed(self, one: Candidate, found: Race) -> Candidate:
        """Note the ratio of a candidate, and put it through the second gate."""
        if one.error is not None:
            return one
        ratio = found.ratios[one.text]
        if isinstance(ratio, SessionError):
            return replace(one, status="failed", error=self._unusable(one, "used", ratio))
        timed = replace(one, ratio=ratio)
        try:
            check_faster(one.text, ratio, found.baseline)
        except CompressError as err:
            if self._request.prefer != "size":
                return replace(timed, status="slower", error=err)
        return timed

    def _judged(self, timed: Sequence[Candidate]) -> Iterator[Candidate]:
        """Put candidates through the third gate, the best first, until the others are behind for certain."""
        best: Candidate | None = None
        for one in sorted(timed, key=self._rank):
            if one.error is not None or (best is not None and self._is_behind(one, best)):
                yield one
                continue
            judged = self._judge(one)
            if judged.error is None and best is None:
                best = judged
            yield judged

    def _judge(self, one: Candidate) -> Candidate:
        try:
            with closing(open_session(one.quantized.path, SessionOptions(optimization=LEVEL))) as session:
                evaluation = self._request.check(session)
        except SourceError as err:  # the metric had a number for the original
            self._say(one.text, f"cannot be judged: {err.what}")
            return replace(one, status="worse", error=self._unusable(one, "judged", err))
        except SessionError as err:
            return replace(one, status="failed", error=self._unusable(one, "used", err))
        self._say(one.text, f"{one.ratio:.2f}x the speed of fp32, {evaluation.line()}")
        judged = replace(one, evaluation=evaluation)
        try:
            check_metric(one.text, evaluation)
        except CompressError as err:
            return replace(judged, status="worse", error=err)
        return judged

    def _unusable(self, one: Candidate, verb: str, err: SessionError | SourceError) -> CompressError:
        """Return why a candidate is out, without the folder in which it was made: that is gone by then."""
        path = one.quantized.path
        what = err.what.replace(str(path), path.name)
        where = err.where if isinstance(err, SourceError) else self._graph.name
        return CompressError(f"{one.text} cannot be {verb}: {what}", where=where, do=err.do)

    def _rank(self, one: Candidate) -> tuple[float, float]:
        return (one.facts.size_bytes if self._request.prefer == "size" else 0, -one.ratio)

    def _is_behind(self, one: Candidate, best: Candidate) -> bool:
        if self._request.prefer == "size" and one.facts.size_bytes > _SAME_SIZE * best.facts.size_bytes:
            return True
        return one.ratio * (1 + TIE) < best.ratio


def folder_name(text: str) -> str:
    """Return a method's notation as the name of a folder on any system."""
    return text.replace(":", "_").replace("=", "_")
