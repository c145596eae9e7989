"""The whole task, proven: its original program answers before the export, the exported graphs after it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anyport.build.fusing import FUSED_VARIANT
from anyport.build.parts import is_allowed
from anyport.build.plan import UNPROVEN_TASK
from anyport.build.proving import VARIANT
from anyport.build.room import free_memory_bytes
from anyport.build.streams import lent_weights
from anyport.bundle.disk import size_text
from anyport.errors import SourceError, UsageError
from anyport.runtime import open_session
from anyport.task.graphs import OpenGraphs
from anyport.task.memory_peak import PeakMemory
from anyport.verify.whole_task import judge_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyport.build.parts import ProvenPart
    from anyport.build.plan import BuildPlan
    from anyport.recipe import Model
    from anyport.task.rehearsals import TaskAnswer, TaskRequest
    from anyport.verify import Verdict


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """What the original program answered.

    Attributes:
        task: Of the model.
        recorded: Requests and answers.
    """

    task: str
    recorded: Sequence[tuple[TaskRequest, TaskAnswer]]


@dataclass(frozen=True, slots=True)
class ProvenTask:
    """What the graphs answered.

    Attributes:
        verdict: On their answers.
        peak_bytes: The most memory of its own that this took above what the process had, with all parts open
            and their weights copied; ``None`` where the system does not say.
    """

    verdict: Verdict
    peak_bytes: int | None


def why_unproven(model: Model, plan: BuildPlan) -> str | None:
    """Say why a build does not prove the whole task; ``None`` if it does."""
    if model.task is None or model.task_cases is None:
        return "the recipe has no requests"
    if plan.description.build.fix:
        return "some axes are fixed"
    return f"--allow {UNPROVEN_TASK}" if UNPROVEN_TASK in plan.settings.allow else None


def task_note(model: Model, plan: BuildPlan) -> str:
    """Return what the manifest says of a proof that could have been made and was not; empty otherwise."""
    why = why_unproven(model, plan)
    has_cases = model.task is not None and model.task_cases is not None
    return f"the task is not proven as a whole: {why}" if has_cases and why is not None else ""


def ask_original(model: Model, plan: BuildPlan, progress: Callable[[str, str], None]) -> TaskAnswers | None:
    """Let the original program answer the recipe's requests.

    Args:
        model: With the user's words laid over it.
        plan: Of the build.
        progress: Told what was done, or why nothing was.

    Returns:
        ``None``: see `why_unproven`.

    Raises:
        SourceError: This machine has clearly too little memory for it.
    """
    if note := task_note(model, plan):
        progress("warning", note)
    if model.task is None or model.task_cases is None or note:
        return None
    _check_room(model)
    recorded = []
    with lent_weights(model):
        for request, answer in model.task_cases(model.settings):
            recorded.append((request, answer))
            progress("original", f"answered '{request.name}'")  # each runs the whole model several times
    return TaskAnswers(model.task, recorded)


def _check_room(model: Model) -> None:
    """Refuse what would end in the middle: all graphs are opened beside the model, and copy their weights."""
    loaded = [part for part in model.parts if part.stored is None]
    weights = {id(w): w.nbytes for part in loaded for w in part.module.parameters()}
    needed, free = sum(weights.values()), free_memory_bytes(with_swap=True)
    if free is not None and needed > free:
        raise SourceError(
            f"the proof of the whole task opens all graphs beside the model: {size_text(needed)}, "
            f"and {size_text(free)} of memory are left",
            do=f"--allow {UNPROVEN_TASK} builds without this proof: each part is proven alone, and the "
            "manifest says so",
        )


def prove_task(
    model: Model,
    asked: TaskAnswers,
    proven: Sequence[ProvenPart],
    plan: BuildPlan,
    progress: Callable[[str, str], None],
) -> ProvenTask:
    """Hold the task on exported graphs against the original program.

    Args:
        model: For its settings.
        asked: What the original program answered.
        proven: Its parts.
        plan: Of the build.
        progress: Told what was found.

    Raises:
        MismatchError: The verdict is not a pass, and was not allowed by name.
    """
    variant = FUSED_VARIANT if any(one.runtime for one in proven) else VARIANT
    with ExitStack() as stack, PeakMemory() as peak:
        sessions = {}
        for one in proven:
            options = replace(one.options, libraries=tuple(plan.settings.libraries))
            sessions[one.part.name] = open_session(one.graph.path, options)
            stack.callback(sessions[one.part.name].close)
        graphs = OpenGraphs(
            asked.task,
            model.settings,
            {one.part.name: one.part.signature for one in proven},
            sessions,
            lambda name: _asset(model, name),
        )
        verdict = judge_task(asked.recorded, graphs, variant, plan.settings.show_command)
    progress("verify", f"{verdict.part.name}   {variant}   {verdict.summary()}")
    if not is_allowed(verdict, plan.settings):
        verdict.raise_if_bad()
    return ProvenTask(verdict, peak.above_bytes)


def _asset(model: Model, name: str) -> bytes:
    if name not in model.assets:
        raise UsageError(f"the model has no file '{name}'")
    return model.assets[name]
