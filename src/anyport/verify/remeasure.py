"""Measure a lossy graph again, on this machine, and put it into the words of a verdict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.verify.agreement import what_helps
from anyport.verify.lossy import metric_line
from anyport.verify.metric import METRICS
from anyport.verify.verdict import Leg, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.bundle.manifest import VariantEntry
    from anyport.cases import Case
    from anyport.runtime.session import Session
    from anyport.verify.agreement import Evaluation, Measure
    from anyport.verify.reference import Answer, PartSpec, Reference
    from anyport.verify.sampling import SampledSession
    from anyport.verify.sweep import CasePlan

_NOT_COUNTED: Final = Leg("weights", Status.NOT_APPLICABLE, "they are rounded on purpose")
_DO_FAIL: Final = "use another variant on this machine: another processor rounds otherwise"


def judge_lossy(
    evaluation: Evaluation, reference: Reference, candidate: SampledSession, plan: CasePlan, part: PartSpec
) -> Verdict:
    """Judge a lossy graph by what it answers here.

    Args:
        evaluation: What was measured here: of the graph's whole answers, or of the task it works in.
        reference: Knows the exact answers to ``plan``: of those only the form is compared, so that every
            size of the axes is tried.
        candidate: Stays the caller's to close.
        plan: The cases of the exact proof.
        part: What is compared.
    """
    fault = next((text for case in plan.cases if (text := _form_fault(reference, candidate, case, part))), "")
    legs = (_values_leg(evaluation, fault, len(plan.cases)), _power_leg(evaluation), _NOT_COUNTED)
    return Verdict(part, plan, legs, (), evaluation=evaluation)


def built_leg(entry: VariantEntry) -> Leg:
    """Return the third leg of a lossy variant: what was found when it was built."""
    found = metric_line(entry.metric) if entry.metric is not None else "nothing"
    return Leg(
        "weights",
        Status.NOT_APPLICABLE,
        "they are rounded on purpose, and every byte is sealed since",
        (f"found when the bundle was built: {found}",),
    )


def _form_fault(reference: Reference, candidate: Session, case: Case, part: PartSpec) -> str:
    """Return what is wrong with the form of an answer to a case of the exact proof."""
    answer, got = reference.answer(case), candidate.run(case.arrays(part.inputs))
    return next((text for name in answer.outputs if (text := _fault(case, name, answer, got))), "")


def _fault(case: Case, name: str, answer: Answer, got: Mapping[str, np.ndarray]) -> str:
    place = f"in case '{case.name}'"
    if name not in got:
        return f"output '{name}' is missing {place}"
    mine, exact = got[name], answer.outputs[name]
    if (mine.dtype, mine.shape) != (exact.dtype, exact.shape):
        needed = f"{exact.dtype}{list(answer.shape_of(name))}"
        return f"output '{name}' is {mine.dtype}{list(mine.shape)} {place}, must be {needed}"
    if case.kind == "boundary":  # extreme values may leave the range that was calibrated
        return ""
    n_bad = int(np.count_nonzero(np.isfinite(exact) & ~np.isfinite(mine)))
    return f"output '{name}' has {n_bad} elements that are NaN or infinite {place}" if n_bad else ""


def _values_leg(evaluation: Evaluation, fault: str, n_cases: int) -> Leg:
    lines = (*(one.line for one in evaluation.measures), *evaluation.notes)
    forms = f"{n_cases} cases of the exact proof: types, sizes and finiteness of the answers"
    if fault:
        return Leg("values", Status.FAIL, fault, lines, _DO_FAIL)
    if evaluation.status is Status.FAIL:
        return Leg("values", Status.FAIL, evaluation.deciding.line, lines, _DO_FAIL)
    return Leg("values", Status.PASS, evaluation.line(), (*lines, f"{forms} are right"))


def _power_leg(evaluation: Evaluation) -> Leg:
    weak = [one for one in evaluation.measures if one.status is Status.INCONCLUSIVE]
    if weak:
        reasons = tuple(one.line for one in weak[1:])
        return Leg("power", Status.INCONCLUSIVE, weak[0].line, reasons, what_helps(weak[0]))
    least = min((_contrast(one) for one in evaluation.measures), default=0.0)
    if least == 0.0:
        return Leg("power", Status.NOT_APPLICABLE, "nothing could be measured")
    return Leg(
        "power",
        Status.PASS,
        f"the exact answers to different samples are {least:.3g} times as far apart as an answer may be off",
    )


def _contrast(one: Measure) -> float:
    """Return how far samples are apart, in the loss that is allowed."""
    if one.losses is None or one.losses.failure:
        return 0.0
    allowed = METRICS[one.word].loss_at(one.allowance)
    return one.losses.contrast / allowed if allowed else math.inf
