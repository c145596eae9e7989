"""One exported part held against PyTorch: all three legs, and the answers that a bundle keeps as proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from anyport.bundle.proof import sample_of
from anyport.errors import SourceError
from anyport.graph.convert import convert
from anyport.graph.equality import Equality, RecordedAnswers
from anyport.graph.expectations import expected_weights
from anyport.graph.initializers import read_initializers
from anyport.graph.inspect import inspect_onnx
from anyport.graph.localize import first_difference
from anyport.runtime import SessionOptions, open_session
from anyport.source.lines import first_line, user_line_of
from anyport.verify import (
    CasePlan,
    PartSpec,
    Status,
    SweepSettings,
    account_weights,
    compare,
    plan_cases,
    typical_case,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from anyport.build.plan import BuildSettings
    from anyport.cases import Case
    from anyport.graph.capture import Capture
    from anyport.recipe import Part
    from anyport.verify import Answer, Gates, Reference, Verdict

VARIANT: Final = "fp32"  # what an export is called


@dataclass(frozen=True, slots=True)
class Recorded:
    """One case of a proof.

    Attributes:
        case: Its inputs.
        answer: The reference's answer; of large outputs a sample.
        shapes: Output -> its shape, for those that are sampled.
    """

    case: Case
    answer: Answer
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(slots=True)
class Recorder:
    """A reference that keeps its answers, as long as they fit the budget of a proof.

    Attributes:
        reference: Who answers.
        budget_bytes: For the outputs and the given inputs of all cases.
        max_elements: Of an output with more elements a sample of so many is recorded; ``None`` is no limit.
        kept: Case and whole answer, in order, as long as they fit the budget.
        recorded: What the proof will hold.
        omitted: The names of cases that did not fit into the proof.
    """

    reference: Reference
    budget_bytes: int
    max_elements: int | None = None
    kept: list[tuple[Case, Answer]] = field(default_factory=list)
    recorded: list[Recorded] = field(default_factory=list)
    omitted: list[str] = field(default_factory=list)
    _kept_bytes: int = 0
    _recorded_bytes: int = 0

    def answer(self, case: Case) -> Answer:
        """Return the reference's answer."""
        answer = self.reference.answer(case)
        # a boundary case may overflow float32 itself: its floor is infinite, and there is nothing to replay
        is_finite = all(floor.is_finite for floor in answer.floors.values())
        if is_finite and self._kept_bytes + _n_bytes(case, answer) <= self.budget_bytes:
            self._kept_bytes += _n_bytes(case, answer)
            self.kept.append((case, answer))
        short = _sampled(case, answer, self.max_elements)
        if is_finite and self._has_room(case, short.answer):
            self._recorded_bytes += _n_bytes(case, short.answer)
            self.recorded.append(short)
        else:
            self.omitted.append(case.name)
        return answer

    def _has_room(self, case: Case, answer: Answer) -> bool:
        """Say whether the proof may hold a case; given inputs are never sampled, and leave half to others."""
        room = self.budget_bytes - self._recorded_bytes - _n_bytes(case, answer)
        if not case.stored or self.max_elements is None:
            return room >= 0
        return room >= self.budget_bytes // 2


def _n_bytes(case: Case, answer: Answer) -> int:
    return sum(array.nbytes for array in (*answer.outputs.values(), *case.stored.values()))


def _sampled(case: Case, answer: Answer, max_elements: int | None) -> Recorded:
    limit = max_elements or 0
    large = [name for name, array in answer.outputs.items() if 0 < limit < array.size]
    samples = {name: sample_of(answer.outputs[name], limit) for name in large}
    shapes = {name: answer.outputs[name].shape for name in large}
    return Recorded(case, replace(answer, outputs={**answer.outputs, **samples}), shapes)


def verify_part(
    part: Part, captured: Capture, model: Path, reference: Reference, settings: BuildSettings
) -> Verdict:
    """Compare the file ``model`` with PyTorch, all three legs.

    Raises:
        SourceError: PyTorch itself cannot run a planned case.
    """
    signature = part.signature
    names = (part.name, VARIANT, signature.inputs, signature.outputs, signature.dims)
    spec = PartSpec(*names, command=settings.show_command)
    sweep = sweep_settings(settings, captured.sizes, part.max_case_bytes)
    plan = plan_cases(signature.inputs, signature.dims, sweep, given_cases(part), signature.outputs)
    session = open_session(model, SessionOptions(libraries=settings.libraries))
    try:
        verdict = compare(reference, session, plan, spec, settings.gates)
    finally:
        session.close()
    account = account_weights(expected_weights(captured.program), read_initializers(model))
    verdict = verdict.with_leg(account.leg())
    return (
        verdict
        if verdict.leg("values").status is not Status.FAIL
        else _localized(verdict, part, captured, model)
    )


def _localized(verdict: Verdict, part: Part, captured: Capture, model: Path) -> Verdict:
    """Say in which module a failed comparison begins to differ, where that can be found."""
    worst = verdict.worst
    case = next((c for c in verdict.plan.cases if worst is not None and c.name == worst.case), None)
    if case is None:
        return verdict
    try:
        # the map of a fresh export: torch names values alike for whoever exported the file
        modules = convert(captured, part, inspect_onnx(model).opsets["ai.onnx"]).modules
        found = first_difference(part, model, modules, case)
    except Exception as err:  # noqa: BLE001  (the verdict stands; only where it begins is not known)
        return replace(verdict, origin=f"where it begins was not found: {first_line(err)}")
    return replace(verdict, origin=str(found) if found else "no single module's output differs")


def recorded_equality(recorder: Recorder, verdict: Verdict, gates: Gates) -> Equality:
    """Return what a rewritten form of a proven graph is held against: PyTorch's answers, as far as kept.

    Args:
        recorder: Of the verification of the export.
        verdict: What it found.
        gates: The user's own limits.
    """
    kept = recorder.kept
    if not kept:
        return Equality(verdict.part, verdict.plan, gates, recorder.reference)
    plan = CasePlan(tuple(case for case, _ in kept), ())
    answers = RecordedAnswers({case.name: answer for case, answer in kept}, plan)
    # the verdict of the export has shown the power of all its cases; these are some of them
    return Equality(verdict.part, plan, gates, answers, shows_power=False)


def sweep_settings(
    settings: BuildSettings, seen: Mapping[str, int] | None = None, max_case_bytes: int | None = None
) -> SweepSettings:
    """Return how much is tried.

    Args:
        settings: Of the build.
        seen: Sizes that the export saw: they are not counted as unseen.
        max_case_bytes: What the part allows for one case; the build may allow less.
    """
    return SweepSettings(
        max_case_bytes=min(settings.max_case_bytes, max_case_bytes or settings.max_case_bytes),
        max_cases=settings.max_cases,
        seed=settings.seed,
        seen_sizes={name: frozenset({size}) for name, size in (seen or {}).items()},
    )


def given_cases(part: Part) -> list[Case]:
    """Return the user's own cases.

    Raises:
        InputError: One does not fit the inputs of the part.
        SourceError: The user's function fails, or returns something else.
    """
    return [
        typical_case(f"given {number}", arrays, part.signature.inputs, part.signature.dims)
        for number, arrays in enumerate(_given_feeds(part), start=1)
    ]


def read_cases_once(part: Part) -> Part:
    """Run the user's function of cases, check what it gives, and keep that: pictures take time to read.

    Raises:
        InputError: A case does not fit the inputs of the part.
        SourceError: The user's function fails, or returns something else.
    """
    if part.given is None:
        return part
    feeds = _given_feeds(part)
    read = replace(part, given=lambda: feeds)
    given_cases(read)
    return read


def _given_feeds(part: Part) -> list[Mapping[str, np.ndarray]]:
    if part.given is None:
        return []
    try:
        feeds = list(part.given())
    except Exception as err:
        raise SourceError(
            f"the function of [cases] fails: {type(err).__name__}: {first_line(err)}", where=user_line_of(err)
        ) from err
    for number, arrays in enumerate(feeds, start=1):
        if not isinstance(arrays, Mapping):
            raise SourceError(
                f"case {number} of [cases] is a {type(arrays).__name__}, not a dict of input name -> array",
                do='return a list such as [{"x": numpy.zeros((2, 4), numpy.float32)}]',
            )
    return feeds
