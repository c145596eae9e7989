"""Whether a graph that a tool rewrote still computes what it should.

The reference computes its answers first and is closed, so that never more than one graph is open for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from anyport.bundle.disk import size_text
from anyport.errors import MismatchError, SessionError
from anyport.runtime import SessionOptions, open_session
from anyport.verify import CasePlan, Gates, SessionReference, Status, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anyport.cases import Case
    from anyport.runtime import Optimization, Weights
    from anyport.verify import Answer, Leg, PartSpec, Reference, Verdict

_ANSWERS_BYTES: Final = 512 << 20  # of memory for the reference's answers


@dataclass(frozen=True, slots=True)
class Equality:
    """What a simplified graph is held against, and where it is timed.

    Attributes:
        part: Inputs, outputs and axes.
        plan: The cases.
        gates: The user's own limits.
        reference: Who knows the right answers; by default the original graph without optimizations.
        timed: The case that is timed; by default the one that ``anyport bench`` times.
        account: Whether a file has all weights of the model; without it only the answers are compared.
        weights: How graphs are opened: ``mapped`` where no memory would hold their weights.
        shows_power: The cases must show that every input and output counts; not so where they are some of
            those that showed it before.
    """

    part: PartSpec
    plan: CasePlan
    gates: Gates = field(default_factory=Gates)
    reference: Reference | None = None
    timed: Case | None = None
    account: Callable[[Path], Leg] | None = None
    weights: Weights | None = None
    shows_power: bool = True


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a comparison found, for the log.

    Attributes:
        status: ``equal``, ``different``, ``unproven`` (the comparison proves nothing), or ``failed``: the
            runtime cannot open the graph.
        largest_difference: Over all outputs and cases; ``None`` where nothing was computed.
        reason: Empty for ``equal``.
    """

    status: Literal["different", "equal", "failed", "unproven"]
    largest_difference: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RecordedAnswers:
    """A reference's answers by the name of their case, and the cases that have one."""

    answers: Mapping[str, Answer]
    plan: CasePlan

    def answer(self, case: Case) -> Answer:
        """Return the recorded answer."""
        return self.answers[case.name]


def record_answers(
    reference: Reference, plan: CasePlan, budget_bytes: int = _ANSWERS_BYTES
) -> RecordedAnswers:
    """Ask a reference about every case, in order, as long as the answers fit into memory.

    Cases whose answers do not fit are dropped from the plan, which says so; the first one always fits.
    """
    answers: dict[str, Answer] = {}
    cases, dropped = [], list(plan.dropped)
    for case in plan.cases:
        answer = reference.answer(case)
        size_bytes = sum(array.nbytes for array in answer.outputs.values())
        if answers and size_bytes > budget_bytes:
            dropped.append(f"{case.name}: no memory to keep its answer of {size_text(size_bytes)}")
            continue
        budget_bytes -= size_bytes
        answers[case.name] = answer
        cases.append(case)
    return RecordedAnswers(answers, CasePlan(tuple(cases), tuple(dropped)))


class Judge:
    """Holds graphs against one reference, every file at every level once.

    Args:
        original: The graph that others are held against where ``equality`` names no other reference.
        equality: What is compared.

    Raises:
        SessionError: The original cannot be opened or run.
    """

    def __init__(self, original: Path, equality: Equality) -> None:
        self._equality = equality
        self._known: dict[tuple[Path, Optimization], Judgement] = {}
        self._accounts: dict[Path, Leg] = {}
        if equality.reference is not None:
            self._answers = record_answers(equality.reference, equality.plan)
            return
        session = open_session(original, SessionOptions(optimization="none", weights=equality.weights))
        try:
            self._answers = record_answers(SessionReference(session), equality.plan)
        finally:
            session.close()

    def judge(self, path: Path, level: Optimization) -> Judgement:
        """Compare a graph, opened with these optimizations of the runtime."""
        key = (path, level)
        if key not in self._known:
            self._known[key] = self._compare(path, level)
        return self._known[key]

    def _compare(self, path: Path, level: Optimization) -> Judgement:
        try:
            session = open_session(path, SessionOptions(optimization=level, weights=self._equality.weights))
        except SessionError as err:
            return Judgement("failed", reason=f"level {level}: {err.what}")
        part, gates = self._equality.part, self._equality.gates
        try:
            verdict = compare(self._answers, session, self._answers.plan, part, gates)
        except MismatchError as err:  # the reference itself has no answer
            return Judgement("unproven", reason=err.what)
        finally:
            session.close()
        if not self._equality.shows_power:
            verdict = replace(verdict, legs=tuple(leg for leg in verdict.legs if leg.name != "power"))
        return _judgement(self._accounted(verdict, path), level)

    def _accounted(self, verdict: Verdict, path: Path) -> Verdict:
        """Add the leg of the weights, which is the same at every level."""
        if self._equality.account is None or verdict.status is not Status.PASS:
            return verdict
        if path not in self._accounts:
            self._accounts[path] = self._equality.account(path)
        return verdict.with_leg(self._accounts[path])


def _judgement(verdict: Verdict, level: Optimization) -> Judgement:
    largest = max((f.numbers.max_abs for f in verdict.findings if f.numbers is not None), default=None)
    if verdict.status is Status.PASS:
        return Judgement("equal", largest)
    leg = next(leg for leg in verdict.legs if leg.status is verdict.status)
    status: Literal["different", "unproven"] = "different" if leg.status is Status.FAIL else "unproven"
    return Judgement(status, largest, f"level {level}: {leg.line}")
