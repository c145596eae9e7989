"""``--compress`` of a model of several parts: its task as a whole judges, on the user's pictures."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from anyport.bench.machine import cpu_flags
from anyport.build.compressing import Variant, compressed_in, is_folder, levels_of, variant_name, variant_of
from anyport.build.parts import graph_entry
from anyport.build.proving import VARIANT, recorded_equality
from anyport.compress.compressing import CompressRequest, compress_graph
from anyport.compress.methods import candidates, needs_samples
from anyport.compress.samples import check_number, pictures_in
from anyport.compress.task_judging import EqualTexts, TaskJudge
from anyport.compress.task_samples import (
    TappedSamples,
    TaskPictures,
    check_pictures,
    divide_pictures,
    keep_clear,
)
from anyport.errors import CompressError, InputError, SessionError, UsageError, did_you_mean
from anyport.graph.storing import read_graph
from anyport.runtime import SessionOptions, open_session
from anyport.task.graphs import OpenGraphs
from anyport.task.picture_settings import PictureSettings
from anyport.task.texts import TextReader, TextSettings, read_lines
from anyport.task.trials import TOKENS, TRIALS, open_trial, tokens_of
from anyport.tensors import tensor
from anyport.verify import (
    MIN_SAMPLES,
    CosineSimilarity,
    Evaluated,
    RecordSettings,
    choose_metrics,
    evaluate,
    metric_from,
    record,
)
from anyport.verify.lossy import write_task_evaluated
from anyport.verify.recording import n_recorded
from anyport.verify.tasks import different, failed
from anyport.verify.tolerance import clear_margin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from anyport.build.parts import ProvenPart
    from anyport.build.plan import BuildPlan
    from anyport.bundle import GraphEntry
    from anyport.compress.compression import Compression
    from anyport.compress.methods import Method
    from anyport.compress.task_samples import ClearSamples, TaskSamples
    from anyport.recipe import Model
    from anyport.runtime import Session
    from anyport.task.trials import Trial
    from anyport.verify import Evaluation, Measure, Metric, Recording

    Progress = Callable[[str, str], None]

_OPERATORS: Final = {"Conv": 1, "MatMul": 1}  # of some part: pictures are divided before parts are looked at


def is_task_judged(model: Model, plan: BuildPlan) -> bool:
    """Say whether the task as a whole judges: several parts, a folder of pictures, a task that can."""
    return len(model.parts) > 1 and model.task in TRIALS and is_folder(plan)


def check_task_samples(model: Model, plan: BuildPlan) -> None:
    """Refuse what a compression could not be judged by, before the export, which takes longer.

    Raises:
        InputError: There are too few pictures or texts, a picture cannot be read, or a text is too long.
        UsageError: A word is for models that are judged part by part, or an output does not exist.
    """
    texts = plan.description.calibrate.texts if plan.description.calibrate else None
    if not is_task_judged(model, plan):
        if texts is not None:
            raise UsageError(f"the texts of {texts} are for a task that looks at pictures and texts")
        return
    if texts is not None and not TRIALS[model.task or ""].n_texts:
        raise UsageError(f"the task '{model.task}' looks at pictures alone", do=f"leave {texts} out")
    if not plan.description.build.compress:
        return
    if plan.description.evaluate is not None:
        raise UsageError(
            "[evaluate] is of one part, and a folder of pictures has the task judge as a whole",
            do="leave one out; functions for each part: [calibrate] samples = 'calibrate.py:{part}'",
        )
    pictures, settings = _pictures(model, plan), msgspec.convert(model.settings["picture"], PictureSettings)
    for method in plan.description.build.compress:
        check_number(len(pictures.paths), pictures.name, with_ranges=needs_samples(_methods(method)))
        check_pictures(pictures, settings, _methods(method))
    if texts is not None:
        _check_texts(model, pictures.texts, texts)
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
    texts = tuple(dict.fromkeys(read_lines(str(plan.folder / table.texts))))
    if len(texts) < entry.least_texts:
        raise InputError(
            f"{table.texts} holds {len(texts)} different texts, the task '{model.task}' needs "
            f"{entry.least_texts} or more"
        )
    return TaskPictures(name, paths, texts, entry.n_texts)


def _check_texts(model: Model, texts: Sequence[str], file: str) -> None:
    """Refuse texts that do not fit into the model."""
    settings = msgspec.convert(model.settings["text"], TextSettings)
    graphs = OpenGraphs(model.task, model.settings, {}, {}, model.assets.__getitem__)
    reader = TextReader(graphs, settings, f"the task '{model.task}'")
    try:
        tokens_of(texts, reader, settings)
    except InputError as err:
        raise InputError(err.what, where=file, do="shorten it, or leave it out") from err


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
        if name not in of_parts:
            form = "int64[1, steps]" if name == TOKENS else "float32[1, texts, width]"
            _of_its_kind(name, metric_from(text), choose_metrics(None, [tensor(name, form)])[name])


def _of_its_kind(name: str, asked: Metric, usual: Metric) -> Metric:
    """Return an output's own metric with the limit that is asked for.

    Raises:
        UsageError: Another metric is asked for: no machine would take such a proof.
    """
    if asked.word != usual.word:
        raise UsageError(
            f"[metrics] has '{name}' judged by {asked.word}: what the task answers is judged by {usual.word}",
            do=f"write {name} = '{usual.word}:{usual.least}', or leave it out",
        )
    return replace(usual, least=asked.least)


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

    def n_nodes(self, parts: Sequence[str]) -> int:
        """Return how many operations lie between a picture and an answer, at most."""
        return sum(self.proven[part].graph.n_nodes for part in parts)

    def trial(self, others: Mapping[str, Session] | None = None) -> Trial:
        """Open the task's trial, with other sessions for some parts."""
        parts = {name: one.part.signature for name, one in self.proven.items()}
        sessions = {**self.exact, **(others or {})}
        read = self._read
        return open_trial(OpenGraphs(self.model.task, self.model.settings, parts, sessions, read))

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
        calibration, judging = divide_pictures(pictures, self._trial, _methods(method))
        progress("compress", f"the task '{bench.model.task}' answers {judging.name}")
        clear = keep_clear(calibration, judging, clear_margin(bench.n_nodes(self._trial.parts)))
        self._calibration, self._doubt = clear.calibration, _doubt_line(clear.n_unclear)
        if self._doubt:
            progress("compress", self._doubt)
        _check_clear(clear, judging, method)
        self._recording = self._recorded(clear.judging)

    def variant(self) -> Variant:
        """Compress every part, and judge them together.

        Raises:
            CompressError: Nothing is left.
        """
        kept, refused = self._parts()
        if not kept:
            raise refused[0]
        evaluation, line = self._together(kept)
        name = self._name
        alike = _least_alike(kept)
        self._progress(
            "compress", f"{name}   {', '.join(kept)} together: {evaluation.line()}, {line or alike}"
        )
        judged = (list(kept), Evaluated(self._recording, evaluation))
        note = "; ".join(word for word in (line, alike, self._doubt) if word)
        metric = write_task_evaluated(self._bench.folder, name, judged, note, cpu_flags())
        made = {part: (one.entry, one.found) for part, one in kept.items()}
        return variant_of(list(self._bench.proven.values()), made, self._notes(kept), metric)

    def _recorded(self, judging: TaskSamples) -> Recording:
        """Record as many as a bundle has room for, and say so where that is not all."""
        trial, signature = self._trial, self._trial.signature
        chosen = judging.spread(n_recorded(trial, next(iter(judging)), signature))
        recording = different(record(trial, chosen, signature, _metrics(trial, self._bench.plan)))
        n = sum(1 for _ in recording.runs)
        _check_different(n, len(chosen), self._method)
        if len(chosen) < len(judging):
            room_mb = RecordSettings().budget_bytes / 1e6
            self._progress(
                "compress",
                f"{n} of these {len(judging)} judge, evenly spread: a bundle has {room_mb:.0f} MB for them",
            )
        return recording

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
        with compressed_in(path.parent):
            found = compress_graph(one.graph.path, path, self._request(one))
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
            recorded_equality(one.recorder, one.verdict, bench.plan.settings.gates),
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
            try:
                return evaluate(self._recording, counted), counted.line
            except SessionError as err:  # its numbers are not finite
                return failed(self._recording, err.what), ""

    def _notes(self, kept: Mapping[str, _Kept]) -> list[str]:
        """What a user must know."""
        slow = [part for part, one in kept.items() if not one.found.is_faster]
        notes = [f"{', '.join(slow)}: not faster than {VARIANT}, kept for size"] if slow else []
        return [*notes, *text_notes(self._bench.model, self._bench.plan)]


def text_notes(model: Model, plan: BuildPlan) -> list[str]:
    """Say whose texts judge, where they are not the user's."""
    table, entry = plan.description.calibrate, TRIALS[model.task or ""]
    is_own = entry.n_texts > 0 and (table is None or table.texts is None)
    return [f"judged with {len(entry.texts)} texts of anyport's own, not yours"] if is_own else []


def _doubt_line(n_unclear: int) -> str:
    """Say how many pictures do not judge."""
    if not n_unclear:
        return ""
    return f"{n_unclear} pictures do not judge: the exact model's two best choices are as close as rounding"


def _check_clear(clear: ClearSamples, judging: TaskSamples, method: str) -> None:
    """Refuse to judge by too few, on other processors: there, unclear choices may be others.

    Raises:
        CompressError: They are too few.
    """
    if len(clear.judging) >= MIN_SAMPLES:
        return
    raise CompressError(
        f"{method}: {len(clear.judging)} of {judging.name} are clear enough to judge by, {MIN_SAMPLES} are "
        "needed",
        where=_doubt_line(clear.n_unclear),
        do="give more pictures, of the kind that the model was trained for",
    )


def _check_different(n: int, n_chosen: int, method: str) -> None:
    """Refuse to judge by too few different pictures.

    Raises:
        CompressError: They are too few.
    """
    if n >= MIN_SAMPLES:
        return
    raise CompressError(
        f"{method}: {n} of {n_chosen} pictures that judge are different ones, {MIN_SAMPLES} are needed",
        do="give more pictures, of the kind that the model was trained for",
    )


def _metrics(trial: Trial, plan: BuildPlan) -> dict[str, Metric]:
    """Return how what the task answers is judged."""
    found = choose_metrics(None, trial.outputs)
    for name, text in plan.description.metrics.items():
        if name in found:
            found[name] = _of_its_kind(name, metric_from(text), found[name])
    return found


def _least_alike(kept: Mapping[str, _Kept]) -> str:
    """Return the least cosine of what the parts give, each alone in its place."""
    each: list[Measure] = [
        one for part in kept.values() for one in part.found.evaluation.measures if "/" in one.output
    ]
    if not each:
        return ""
    least = min(each, key=lambda one: one.value)
    return f"least cosine of a part {least.value:.5f}, {least.output}"
