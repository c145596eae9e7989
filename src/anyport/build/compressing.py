"""``--compress``: a proven model gets one more variant, which carries the samples that it was judged by."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from anyport.bench.machine import cpu_flags
from anyport.build.parts import graph_entry
from anyport.build.proving import VARIANT, recorded_equality
from anyport.bundle import GraphEntry, Step, VariantEntry
from anyport.compress.compressing import CompressRequest, compress_graph
from anyport.compress.judging import judge_by
from anyport.compress.methods import candidates
from anyport.compress.samples import RANDOM, divide, samples_from
from anyport.errors import CompressError, InputError, UsageError, did_you_mean
from anyport.graph.fastest import LEVELS
from anyport.graph.storing import read_graph
from anyport.source import load_value
from anyport.task.texts import read_lines
from anyport.verify import (
    Evaluated,
    Status,
    UserMetric,
    choose_metrics,
    metric_from,
    typical_case,
    write_evaluated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from anyport.build.parts import ProvenPart
    from anyport.build.plan import BuildPlan
    from anyport.bundle import MetricEntry
    from anyport.cases import Case
    from anyport.compress.compression import Compression
    from anyport.compress.judging import Judge
    from anyport.compress.samples import Samples
    from anyport.recipe import Model
    from anyport.runtime import Optimization

    Progress = Callable[[str, str], None]

PART: Final = "{part}"  # stands for the part's name in [calibrate] and [evaluate]


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant that was made.

    Attributes:
        entry: For the manifest.
        found: Part -> what was kept of what was tried, for the parts that are compressed in it.
    """

    entry: VariantEntry
    found: Mapping[str, Compression]


def variant_name(method: str) -> str:
    """Return what the variant of a method is called.

    >>> variant_name("int8-static:u8s8:percentile=99.9")
    'int8-static-u8s8-percentile-99.9'
    """
    return method.replace(":", "-").replace("=", "-")


def check_compression(plan: BuildPlan) -> None:
    """Refuse what cannot be done before anything is loaded.

    Raises:
        UsageError: A method or metric is not understood, or there is nothing to judge by.
    """
    methods, metrics = plan.description.build.compress, plan.description.metrics
    for name, text in metrics.items():
        metric_from(text)
        outputs = plan.description.outputs
        if outputs and name not in outputs:
            raise UsageError(f"[metrics] names '{name}', which is no output{did_you_mean(name, outputs)}")
    for method in methods:
        candidates(method, {"Conv": 1, "MatMul": 1})
        if methods.count(method) > 1:
            raise UsageError(f"--compress {method} comes twice")
    calibrate = plan.description.calibrate
    if calibrate is not None and calibrate.texts is not None and not is_folder(plan):
        raise UsageError(
            f"the texts of {calibrate.texts} go with a folder of pictures, not with '{calibrate.samples}'",
            do="yield them in your function, or leave [calibrate] texts (--calibrate-texts) out",
        )
    if methods and (calibrate is None or not calibrate.samples):
        raise UsageError(
            f"--compress {methods[0]} has no samples to be judged by",
            do="--calibrate calibrate.py:samples, a folder of pictures, or random; or [calibrate] samples",
        )


def is_folder(plan: BuildPlan) -> bool:
    """Say whether ``[calibrate] samples`` is a folder of pictures."""
    samples = plan.description.calibrate.samples if plan.description.calibrate else ""
    return bool(samples) and samples != RANDOM and (":" not in samples or (plan.folder / samples).is_dir())


def check_user_files(plan: BuildPlan) -> None:
    """Find what ``[calibrate]`` and ``[evaluate]`` name before the export, which takes longer.

    Raises:
        InputError: There is no such folder.
        SourceError: There is no such function.
        UsageError: ``max_drop`` is no limit.
    """
    description = plan.description
    if not description.build.compress:
        return
    evaluate, samples = description.evaluate, description.calibrate.samples if description.calibrate else ""
    if evaluate is not None and PART not in evaluate.function:
        UserMetric(evaluate.function, load_value(evaluate.function, plan.folder), evaluate.max_drop)
    texts = description.calibrate.texts if description.calibrate else None
    if texts is not None:
        read_lines(str(plan.folder / texts))
    if PART in samples or samples == RANDOM or (plan.folder / samples).is_dir():
        return
    if ":" not in samples:
        raise InputError(f"there is no folder '{samples}'", where="[calibrate] samples")
    load_value(samples, plan.folder)


def compress_model(
    model: Model, proven: Sequence[ProvenPart], plan: BuildPlan, method: str, progress: Progress
) -> Variant:
    """Make one more variant of a proven model, in the folder of the build.

    Of several parts, those that a method does nothing for stay as they are.

    Args:
        model: Its settings say how pictures are read.
        proven: The parts; their graphs lie in ``parts/<part>/fp32/`` of the folder.
        plan: Says what is measured on, and by what.
        method: The notation.
        progress: Called with a step and one line for each part.

    Raises:
        CompressError: Nothing passed the gates; no file of this variant is left.
    """
    name = variant_name(method)
    made: dict[str, _Made] = {}
    refused: list[CompressError] = []
    for one in proven:
        try:
            made[one.part.name] = _Compressor(model, one, plan).compressed(method, progress)
        except CompressError as err:
            refused.append(err)
            if len(proven) > 1:
                progress("compress", f"{one.part.name} stays {VARIANT} in {name}: {err.what}")
    if not made:
        raise refused[0]
    evaluated = {part: one.evaluated for part, one in made.items()}
    metric = write_evaluated(proven[0].graph.path.parents[3], name, evaluated, cpu_flags())
    notes = [f"{part}: {one.note}" for part, one in made.items() if one.note]
    return variant_of(proven, {part: (one.entry, one.found) for part, one in made.items()}, notes, metric)


def variant_of(
    proven: Sequence[ProvenPart],
    made: Mapping[str, tuple[GraphEntry, Compression]],
    notes: Sequence[str],
    metric: MetricEntry,
) -> Variant:
    """Put a variant together: parts that are not compressed in it keep their exact graph.

    Args:
        proven: All parts.
        made: Part -> its compressed graph, and what was kept.
        notes: What a user must know; of parts whose exact graph is not proven it is said here.
        metric: What the variant is worth.
    """
    graphs = {one.part.name: one.entry for one in proven} | {part: entry for part, (entry, _) in made.items()}
    found = {part: one for part, (_, one) in made.items()}
    steps = [step for one in proven for step in one.steps]
    for part, one in found.items():
        settings = {"part": part, "method": one.kept, "calibrated_on": one.calibrated_on}
        steps.append(Step("compress", settings, one.evaluation.line()))
    doubtful = [one for one in proven if one.verdict.status is not Status.PASS]
    unproven = [f"{one.part.name}: {one.verdict.summary()}" for one in doubtful]
    return Variant(VariantEntry(graphs, steps, not unproven, "; ".join([*unproven, *notes]), metric), found)


@contextmanager
def compressed_in(folder: Path) -> Iterator[Path]:
    """Make the folder of a compressed graph; it goes again where none is kept."""
    folder.mkdir()
    try:
        yield folder
    except CompressError:
        folder.rmdir()
        raise


@dataclass(frozen=True, slots=True)
class _Made:
    """One part, compressed."""

    entry: GraphEntry
    found: Compression
    evaluated: Evaluated
    on_noise: bool

    @property
    def note(self) -> str:
        """What a user must know."""
        slow = [] if self.found.is_faster else ["not faster than fp32, kept for its size"]
        noise = ["calibrated and judged on random numbers, not on data"] if self.on_noise else []
        return ", ".join([*slow, *noise])


class _Compressor:
    """Compresses one part: its samples, its exact answers, its metric."""

    def __init__(self, model: Model, proven: ProvenPart, plan: BuildPlan) -> None:
        self._model = model
        self._proven = proven
        self._plan = plan
        self._part = proven.part
        description = plan.description
        self._user: UserMetric | None = None
        if description.evaluate is not None:
            text = description.evaluate.function.replace(PART, self._part.name)
            self._user = UserMetric(text, load_value(text, plan.folder), description.evaluate.max_drop)

    def compressed(self, method: str, progress: Progress) -> _Made:
        """Make, judge and keep the best graph of a method.

        Raises:
            CompressError: There is none.
        """
        name = variant_name(method)
        graph = self._proven.graph.path
        with compressed_in(graph.parents[1] / name) as folder:
            found, evaluated = self._kept(method, folder / graph.name)
        on_noise = self._samples_text() == RANDOM
        warning = "   on RANDOM NUMBERS, not on your data" if on_noise else ""
        progress("compress", f"{self._part.name}   {found.summary()}{warning}")
        entry = graph_entry(self._part, name, read_graph(folder / graph.name), found.optimization)
        return _Made(entry, found, evaluated, on_noise)

    def _kept(self, method: str, output: Path) -> tuple[Compression, Evaluated]:
        methods = candidates(method, self._proven.graph.operators)
        calibration, judging = divide(self._samples(), self._part.signature, methods)
        judge = self._judge(judging)
        equality = recorded_equality(self._proven.recorder, self._proven.verdict, self._plan.settings.gates)
        request = CompressRequest(
            method,
            replace(equality, timed=self._timed(judging)),
            judge,
            calibration,
            self._plan.description.build.prefer,
            levels_of(self._proven),
        )
        found = compress_graph(self._proven.graph.path, output, request)
        return found, Evaluated(judge.recording, found.evaluation)

    def _timed(self, samples: Samples) -> Case | None:
        """Return what is raced: a sample, where the sizes of the axes are a recipe's and not the user's.

        A recipe says what a network can take, up to 65,536 tokens; the middle of that needs 20 GB and more.
        """
        if len(self._model.parts) == 1 or self._samples_text() == RANDOM:
            return None
        feeds, signature = next(iter(samples)), self._part.signature
        return typical_case("the first sample", feeds, signature.inputs, signature.dims)

    def _samples(self) -> Samples:
        text, signature = self._samples_text(), self._part.signature
        return samples_from(text, signature, self._plan.folder, self._model.settings)

    def _samples_text(self) -> str:
        table = self._plan.description.calibrate
        return "" if table is None else table.samples.replace(PART, self._part.name)

    def _judge(self, samples: Samples) -> Judge:
        signature, named = self._part.signature, self._plan.description.metrics
        metrics = choose_metrics(self._model.task, signature.outputs)
        metrics |= {name: metric_from(text) for name, text in named.items() if name in metrics}
        graph = (self._proven.graph.path, self._proven.optimization)
        return judge_by(graph, samples, signature, metrics, self._user)


def levels_of(proven: ProvenPart) -> tuple[Optimization, ...]:
    """Return the levels that the exact graph may be opened at."""
    return LEVELS if proven.simplification is None else (proven.optimization,)
