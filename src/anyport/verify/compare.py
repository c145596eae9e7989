"""Compare a candidate with a reference, case by case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.errors import MismatchError
from anyport.verify.finding import index_text
from anyport.verify.judging import Measured, Place, judge, measure
from anyport.verify.pooling import FloorPool, FloorSample, family_of
from anyport.verify.power import PowerTape, power_leg
from anyport.verify.ties import possible_links, surviving_links
from anyport.verify.tolerance import Gates
from anyport.verify.verdict import Leg, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.cases import Case
    from anyport.runtime.session import Session
    from anyport.verify.finding import Finding
    from anyport.verify.reference import Answer, PartSpec, Reference
    from anyport.verify.sweep import CasePlan
    from anyport.verify.ties import Link

_MAX_NOTES: Final = 6
_NO_GATES: Final = Gates()
_NO_WEIGHTS: Final = Leg("weights", Status.NOT_APPLICABLE, "the weights were not accounted for here")


def compare(
    reference: Reference, candidate: Session, plan: CasePlan, part: PartSpec, gates: Gates = _NO_GATES
) -> Verdict:
    """Run the candidate on every case and hold it against the reference.

    One case at a time: what is kept is a few numbers per output, and for power a sample of the reference's
    answers to cases of equal sizes.

    Returns:
        The legs ``values`` and ``power``; ``weights`` is not applicable until `Verdict.with_leg` adds it.

    Raises:
        MismatchError: The reference itself answers NaN or infinity on an ordinary case, or lacks an output.
    """
    links: frozenset[Link] | None = None
    tape = PowerTape(part, plan.cases)
    measured: list[Measured] = []
    for number, case in enumerate(plan.cases, start=1):
        answer = reference.answer(case)
        _check_reference(case, answer, part)
        links = possible_links(answer.outputs) if links is None else surviving_links(links, answer.outputs)
        tape.keep(case, answer)
        place = Place(case, number, len(plan.cases))
        measured += _measure_case(place, answer, candidate, part, (links, gates))
    sure = links or frozenset()
    findings = judge_all(measured, part, sure)
    legs = (values_leg(findings), power_leg(tape.outputs(sure), tape.inputs(sure)), _NO_WEIGHTS)
    return Verdict(part, plan, legs, findings)


def _check_reference(case: Case, answer: Answer, part: PartSpec) -> None:
    """Refuse a reference that has nothing to say, or that is broken itself."""
    where = f"part {part.name}, variant {part.variant}"
    for spec in part.outputs:
        if spec.name not in answer.outputs:
            raise MismatchError(f"{part.reference} gives no output '{spec.name}'", where=where)
        array = answer.outputs[spec.name]
        if not np.issubdtype(array.dtype, np.floating):
            continue
        if spec.name not in answer.floors:
            raise MismatchError(
                f"{part.reference} gives no floor for the float output '{spec.name}'", where=where
            )
        if case.kind == "boundary":
            continue
        problem = _problem(array, overflows=not answer.floors[spec.name].is_finite)
        if problem:
            raise MismatchError(
                f"{part.reference} itself {problem} on case '{case.name}', output '{spec.name}'"
                + _first_special(answer, spec.name),
                where=where,
                do="correct the model, or say under [inputs] and [dims] which values and sizes it takes",
            )


def _problem(array: np.ndarray, *, overflows: bool) -> str:
    if np.isnan(array).any():
        return "answers NaN"
    if np.isinf(array).any():
        return "answers infinity"
    return "overflows in float32" if overflows else ""


def _first_special(answer: Answer, output: str) -> str:
    array = answer.outputs[output]
    wrong = np.isnan(array) if np.isnan(array).any() else np.isinf(array)
    if not wrong.any():
        return ""
    index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    place = answer.index_of(output, tuple(int(i) for i in index))
    return f", index {index_text(place)}"


def _measure_case(
    place: Place, answer: Answer, candidate: Session, part: PartSpec, how: tuple[frozenset[Link], Gates]
) -> list[Measured]:
    feeds = place.case.arrays(part.inputs)
    names = [spec.name for spec in part.outputs]
    links, gates = how
    try:
        outputs: Mapping[str, np.ndarray] = candidate.run(feeds)
    except Exception as err:  # noqa: BLE001  (a runtime's own error is a finding about the graph)
        return _refusals(place, names, err)
    return [measure(place, name, (answer, outputs), links, gates) for name in names]


def _refusals(place: Place, names: Sequence[str], err: Exception) -> list[Measured]:
    words = " ".join(str(err).split()) or type(err).__name__
    return [Measured(place, name, failure=f"the graph does not run: {words}") for name in names]


def judge_all(
    measured: Sequence[Measured], part: PartSpec, links: frozenset[Link] = frozenset()
) -> tuple[Finding, ...]:
    """Judge what was measured of all cases, small outputs by floors that are pooled over them."""
    samples = [_sample_of(found, part) for found in measured]
    pool = FloorPool(sample for sample in samples if sample is not None)
    return tuple(
        judge(found, found.floor if sample is None else pool.widen(sample), links)
        for found, sample in zip(measured, samples, strict=True)
    )


def _sample_of(found: Measured, part: PartSpec) -> FloorSample | None:
    if found.floor is None or found.numbers is None:
        return None
    family = family_of(found.place.case, part.inputs)
    numbers = found.numbers
    return FloorSample(found.output, family, found.floor, numbers.scale_rms, numbers.n_elements)


def values_leg(findings: Sequence[Finding]) -> Leg:
    """Return the leg: it fails with the worst finding's own words."""
    if not findings:
        return Leg("values", Status.INCONCLUSIVE, "no case was run", do="give cases, or let them be planned")
    worst = max(findings, key=lambda found: (not found.passed, found.used))
    n_failed = sum(not found.passed for found in findings)
    notes = _notes(findings)
    if n_failed:
        line = f"{worst.reason} ({n_failed} of {len(findings)} comparisons fail)"
        return Leg("values", Status.FAIL, line, notes)
    measured = [found for found in findings if found.floor is not None and found.numbers is not None]
    if not measured:
        return Leg("values", Status.PASS, f"{len(findings)} whole-number outputs are equal", notes)
    worst_ratio = max(found.ratio_max for found in measured)
    hows = dict.fromkeys(found.floor.how for found in measured if found.floor is not None)
    # the summary of issue and README: PyTorch's own rounding, where that is what the floor measures
    line = f"worst {worst_ratio:.2g}x of {_whose(hows)}"
    return Leg("values", Status.PASS, line, (*notes, *(f"floor: {how}" for how in hows)))


def _notes(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return the first few reasons; `Verdict.table` and ``--json`` have the others."""
    notes = [f"{found.output}, {found.case}: {found.reason}" for found in findings if found.reason]
    more = [f"… and {len(notes) - _MAX_NOTES} more"] if len(notes) > _MAX_NOTES else []
    return (*notes[:_MAX_NOTES], *more)


def _whose(hows: Mapping[str, None]) -> str:
    return (
        "PyTorch's own rounding" if all("PyTorch" in how for how in hows) else "the reference's own rounding"
    )
