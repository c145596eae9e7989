"""``--compress`` of a model of several parts: its task as a whole judges, on the user's pictures."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from anyport.bench.machine import cpu_flags
from anyport.build.compressing import Variant, equality_of, is_folder, levels_of, unproven_lines, variant_name
from anyport.build.parts import graph_entry
from anyport.build.proving import VARIANT
from anyport.bundle import Step, VariantEntry
from anyport.compress.compressing import CompressRequest, compress_graph
from anyport.compress.methods import candidates, needs_samples
from anyport.compress.samples import check_number, pictures_in
from anyport.compress.task_judging import EqualTexts, TaskJudge
from anyport.compress.task_samples import TappedSamples, TaskPictures, divide_pictures
from anyport.errors import CompressError, InputError, UsageError, did_you_mean
from anyport.graph.storing import read_graph
from anyport.runtime import SessionOptions, open_session
from anyport.task.texts import read_lines
from anyport.task.trials import TRIALS, PartSessions, open_trial
from anyport.verify import CosineSimilarity, Evaluated, choose_metrics, evaluate, metric_from, record
from anyport.verify.lossy import write_task_evaluated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from anyport.build.parts import ProvenPart
    from anyport.build.plan import BuildPlan
    from anyport.bundle import GraphEntry
    from anyport.compress.compression import Compression
    from anyport.compress.methods import Method
    from anyport.compress.task_samples import TaskSamples
    from anyport.recipe import Model
    from anyport.runtime import Session
    from anyport.task.trials import Trial
    from anyport.verify import Evaluation, Measure, Metric

    Progress = Callable[[str, str], None]

_OPERATORS: Final = {"Conv": 1, "MatMul": 1}  # of some part: pictures are divided before parts are looked at


def is_task_judged(model: Model, plan: BuildPlan) -> bool:
    """Say whether the task as a whole judges: several parts, a folder of pictures, a task that can."""
    return len(model.parts) > 1 and model.task in TRIALS and is_folder(plan)


def check_task_samples(model: Model, plan: BuildPlan) -> None:
    """Refuse what a compression could not be judged by, before the export, which takes longer.

    Raises:
        InputError: There are too few pictures or texts.
        UsageError: A word is for models that are judged part by part, or an output does not exist.
    """
    texts = plan.description.calibrate.texts if plan.description.calibrate else None
    if not is_task_judged(model, plan):
        if texts is not None and plan.description.build.compress:
            raise UsageError(f"the texts of {texts} are for a task that looks at pictures and texts")
        return
    if not plan.description.build.compress:
        return
    if plan.description.evaluate is not None:
        raise UsageError(
            "[evaluate] is of one part, and a folder of pictures has the task judge as a whole",
            do="leave one out; functions for each part: [calibrate] samples = 'calibrate.py:{part}'",
        )
    pictures = _pictures(model, plan)
    for method in plan.description.build.compress:
        check_number(len(pictures.paths), pictures.name, with_ranges=needs_samples(_methods(method)))
    _check_metrics(model, plan)


def _methods(method: str) -> tuple[Method, ...]:
    return candidates(method, _OPERATORS)


def _pictures(model: Model, plan: BuildPlan) -> TaskPictures:
    table, entry = plan.description.calibrate, TRIALS[model.task or ""]
    text = "" if table is None else table.samples
    paths = pictures_in(plan.folder / text, text)
    name = f"{text} ({len(paths)} pictures)"
    if table is None or table.texts is None:
        return TaskPictures(name, paths, entry.texts, entry.n_texts)
    if not entry.n_texts:
        raise UsageError(f"the task '{model.task}' looks at pictures alone", do=f"leave {table.texts} out")
    texts = tuple(dict.fromkeys(read_lines(str(plan.folder / table.texts))))
    if len(texts) < entry.least_texts:
        raise InputError(
            f"{table.texts} holds {len(texts)} different texts, the task '{model.task}' needs "
            f"{entry.least_texts} or more"
        )
    return TaskPictures(name, paths, texts, entry.n_texts)


def _check_metrics(model: Model, plan: BuildPlan) -> None:
    """Refuse metrics of outputs that nobody has; what a part gives is held by its cosine alone."""
    of_parts = {spec.name for part in model.parts for spec in part.signature.outputs}
    known = of_parts | set(TRIALS[model.task or ""].outputs)
    for name, text in plan.description.metrics.items():
        if name not in known:
            raise UsageError(f"[metrics] names '{name}', which is no output{did_you_mean(name, known)}")
        if name in of_parts and not isinstance(metric_from(text), CosineSimilarity):
            raise UsageError(
                f"'{name}' is what a part gives on its way through the task: its metric is cosine, not {text}"
            )


def compress_task(
    model: Model, proven: Sequence[ProvenPart], plan: BuildPlan, method: str, progress: Progress
) -> Variant:
    """Make one more variant of a proven model of several parts, in the folder of the build.

    Each part's graph is judged in its place, all others being exact; then all that were kept together. Parts
    that a method does nothing for, or that cost too much, stay as they are.

    Args:
        model: Its task judges.
        proven: The parts; their graphs lie in ``parts/<part>/fp32/`` of the folder.
        plan: Says what is measured on.
        method: The notation.
        progress: Called with a step and one line for each part.

    Raises:
        CompressError: Nothing passed the gates; no file of this variant is left.
    """
    with ExitStack() as stack:
        bench = _Bench(model, {one.part.name: one for one in proven}, plan, _open(proven, stack))
        return _TaskCompressor(bench, method, progress).variant()


def _open(proven: Sequence[ProvenPart], stack: ExitStack) -> dict[str, Session]:
    """Open the exact graphs."""
    return {
        one.part.name: stack.enter_context(
            closing(open_session(one.graph.path, SessionOptions(optimization=one.optimization)))
        )
        for one in proven
    }


@dataclass(frozen=True, slots=True)
class _Bench:
    """The exact graphs of a model, open, and the task around them."""

    model: Model
    proven: Mapping[str, ProvenPart]
    plan: BuildPlan
    exact: Mapping[str, Session]

    @property
    def folder(self) -> Path:
        """Where the bundle is being made."""
        return next(iter(self.proven.values())).graph.path.parents[3]

    def trial(self, others: Mapping[str, Session] | None = None) -> Trial:
        """Open the task's trial, with other sessions for some parts."""
        parts = {name: one.part.signature for name, one in self.proven.items()}
        sessions = {**self.exact, **(others or {})}
        read = self._read
        return open_trial(PartSessions(self.model.task, self.model.settings, parts, sessions, read))

    def trial_with(self, part: str, session: Session) -> Trial:
        """Open the trial with another session for one part."""
        return self.trial({part: session})

    def _read(self, relative: str) -> bytes:
        return (self.folder / relative).read_bytes()


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of one part."""

    entry: GraphEntry
    found: Compression
    path: Path

    @property
    def cost(self) -> float:
        """The share of the allowed loss that the part uses of what the task answers."""
        return max((one.used for one in self.found.evaluation.measures if "/" not in one.output), default=0.0)


class _TaskCompressor:
    """Makes one variant."""

    def __init__(self, bench: _Bench, method: str, progress: Progress) -> None:
        self._bench = bench
        self._method, self._name = method, variant_name(method)
        self._progress = progress
        self._trial = bench.trial()
        pictures = _pictures(bench.model, bench.plan)
        self._calibration, judging = divide_pictures(pictures, self._trial, _methods(method))
        progress("compress", f"the task '{bench.model.task}' answers {judging.name}")
        metrics = _metrics(self._trial, bench.plan)
        self._recording = record(self._trial, judging, self._trial.signature, metrics)

    def variant(self) -> Variant:
        """Compress every part, and judge them together.

        Raises:
            CompressError: Nothing is left.
        """
        kept, refused = self._parts()
        if not kept:
            raise refused[0]
        evaluation, line = self._together(kept)
        name, proven = self._name, self._bench.proven
        alike = _least_alike(kept)
        self._progress(
            "compress", f"{name}   {', '.join(kept)} together: {evaluation.line()}, {line or alike}"
        )
        judged = (list(kept), Evaluated(self._recording, evaluation))
        note = "; ".join(word for word in (line, alike) if word)
        metric = write_task_evaluated(self._bench.folder, name, judged, note, cpu_flags())
        graphs = {part: kept[part].entry if part in kept else one.entry for part, one in proven.items()}
        steps = [step for one in proven.values() for step in one.steps]
        steps += [_step(part, one.found) for part, one in kept.items()]
        unproven = unproven_lines(list(proven.values()))
        words = "; ".join([*unproven, *self._notes(kept)])
        entry = VariantEntry(graphs, steps, not unproven, words, metric)
        return Variant(entry, {part: one.found for part, one in kept.items()})

    def _parts(self) -> tuple[dict[str, _Kept], list[CompressError]]:
        kept: dict[str, _Kept] = {}
        refused: list[CompressError] = []
        for part, one in self._bench.proven.items():
            try:
                kept[part] = self._part(one)
            except CompressError as err:
                refused.append(err)
                self._progress("compress", f"{part} stays {VARIANT} in {self._name}: {err.what}")
        return kept, refused

    def _part(self, one: ProvenPart) -> _Kept:
        part, bench = one.part.name, self._bench
        if part not in self._trial.parts:
            raise CompressError(f"{part} is not used by the task '{bench.model.task}', which judges")
        path = one.graph.path.parents[1] / self._name / one.graph.path.name
        path.parent.mkdir()
        try:
            found = compress_graph(one.graph.path, path, self._request(one))
        except CompressError:
            path.parent.rmdir()
            raise
        self._progress("compress", f"{part}   {found.summary()}")
        return _Kept(graph_entry(one.part, self._name, read_graph(path), found.optimization), found, path)

    def _request(self, one: ProvenPart) -> CompressRequest:
        part, bench = one.part.name, self._bench
        trial_with = partial(bench.trial_with, part)
        limits = {
            name: metric
            for name, text in bench.plan.description.metrics.items()
            if isinstance(metric := metric_from(text), CosineSimilarity)
        }
        judge = TaskJudge(part, one.part.signature, bench.exact[part], self._recording, trial_with, limits)
        calibration: TaskSamples | None = self._calibration
        return CompressRequest(
            self._method,
            equality_of(one, bench.plan),
            judge,
            None if calibration is None else TappedSamples(calibration, bench.exact[part], trial_with),
            bench.plan.description.build.prefer,
            levels_of(one),
        )

    def _together(self, kept: dict[str, _Kept]) -> tuple[Evaluation, str]:
        """Judge all kept parts together; while they fail, the one that costs most goes out of ``kept``.

        Raises:
            CompressError: None is left; it speaks of all of them.
        """
        refused: list[CompressError] = []
        while kept:
            evaluation, line = self._judged(kept)
            if evaluation.passed:
                return evaluation, line
            costliest = max(kept, key=lambda part: kept[part].cost)
            what = f"{', '.join(kept)} together do not hold the metric: {evaluation.deciding.line}"
            self._progress("compress", f"{costliest} stays {VARIANT} in {self._name}: {what}")
            refused.append(CompressError(f"{self._method}: {what}"))
            shutil.rmtree(kept.pop(costliest).path.parent)
        raise refused[0]

    def _judged(self, kept: Mapping[str, _Kept]) -> tuple[Evaluation, str]:
        with ExitStack() as stack:
            sessions = {
                part: stack.enter_context(
                    closing(open_session(one.path, SessionOptions(optimization=one.found.optimization)))
                )
                for part, one in kept.items()
            }
            counted = EqualTexts(self._bench.trial(sessions))
            return evaluate(self._recording, counted), counted.line

    def _notes(self, kept: Mapping[str, _Kept]) -> list[str]:
        """What a user must know."""
        slow = [part for part, one in kept.items() if not one.found.is_faster]
        notes = [f"{', '.join(slow)}: not faster than {VARIANT}, kept for size"] if slow else []
        table, entry = self._bench.plan.description.calibrate, TRIALS[self._bench.model.task or ""]
        if entry.n_texts and (table is None or table.texts is None):
            notes.append(f"judged with {len(entry.texts)} texts of anyport's own, not yours")
        return notes


def _metrics(trial: Trial, plan: BuildPlan) -> dict[str, Metric]:
    """Return how what the task answers is judged."""
    return choose_metrics(None, trial.outputs) | {
        name: metric_from(text)
        for name, text in plan.description.metrics.items()
        if name in {spec.name for spec in trial.outputs}
    }


def _step(part: str, found: Compression) -> Step:
    settings = {"part": part, "method": found.kept, "calibrated_on": found.calibrated_on}
    return Step("compress", settings, found.evaluation.line())


def _least_alike(kept: Mapping[str, _Kept]) -> str:
    """Return the least cosine of what the parts give, each alone in its place."""
    each: list[Measure] = [
        one for part in kept.values() for one in part.found.evaluation.measures if "/" in one.output
    ]
    if not each:
        return ""
    least = min(each, key=lambda one: one.value)
    return f"least cosine of a part {least.value:.5f}, {least.output}"
