"""One output of one case: measured first, judged when all cases are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from anyport.verify.finding import Finding, Numbers, index_text, measure_distance
from anyport.verify.ties import Link, largest_margin
from anyport.verify.tolerance import MAX_ABS_MULTIPLE, MIN_RMS_ELEMENTS, RMS_MULTIPLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anyport.cases import Case
    from anyport.verify.reference import Answer, Floor
    from anyport.verify.tolerance import Gates


@dataclass(frozen=True, slots=True)
class Place:
    """Which case this is."""

    case: Case
    number: int
    n_cases: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one output before all cases were seen.

    Attributes:
        place: The case.
        output: The output.
        numbers: The distances; ``None`` where ``failure`` says why there are none.
        floor: As the reference measured it; ``None`` for whole numbers.
        failure: Why it fails whatever the other cases say; empty if nothing does.
        note: Why it may pass although it is unusual.
        margins: For each score that this choice may belong to, how far apart the two choices' scores are, and
            the floor of the score; no entry where the candidate's choice is no choice.
    """

    place: Place
    output: str
    numbers: Numbers | None = None
    floor: Floor | None = None
    failure: str = ""
    note: str = ""
    margins: Mapping[Link, tuple[float, Floor]] | None = None


def measure(
    place: Place,
    output: str,
    sides: tuple[Answer, Mapping[str, np.ndarray]],
    links: Iterable[Link],
    gates: Gates,
) -> Measured:
    """Compare one output of both sides (the reference's answer, the candidate's outputs)."""
    answer, outputs = sides
    expected = answer.outputs[output]
    if output not in outputs:
        names = ", ".join(f"'{name}'" for name in outputs) or "nothing"
        return Measured(place, output, failure=f"output '{output}' is missing: the graph answers {names}")
    got = outputs[output]
    failure = _form_failure(output, answer, got)
    if failure:
        return Measured(place, output, failure=failure)
    if not np.issubdtype(expected.dtype, np.floating):
        numbers = measure_distance(expected, got, None)
        margins = _margins(output, answer, got, links) if numbers.n_different else {}
        return Measured(place, output, numbers, margins=margins)
    floor = answer.floors[output]
    if not floor.is_finite:
        return Measured(
            place, output, floor=floor, note="float32 itself overflows here: nothing to compare with"
        )
    failure = _special_failure(output, answer, got)
    if failure:
        return Measured(place, output, floor=floor, failure=failure)
    numbers = measure_distance(expected, got, floor)
    numbers = replace(numbers, index=answer.index_of(output, numbers.index))
    return Measured(
        place,
        output,
        numbers,
        floor,
        _gate_failure(output, gates, numbers, (expected, got)),
        _special_note(expected),
    )


def _form_failure(output: str, answer: Answer, got: np.ndarray) -> str:
    expected = answer.outputs[output]
    if expected.dtype != got.dtype:
        return f"output '{output}' is {got.dtype}, the reference's is {expected.dtype}"
    if expected.shape != got.shape:
        return f"output '{output}' has the shape {got.shape}, the reference's {answer.shape_of(output)}"
    return ""


def _special_failure(output: str, answer: Answer, got: np.ndarray) -> str:
    """Compare NaN and infinity position by position."""
    expected = answer.outputs[output]
    finite = np.isfinite(expected) & np.isfinite(got)
    same = finite | (np.isnan(expected) & np.isnan(got)) | (expected == got)
    n_wrong = same.size - int(np.count_nonzero(same))
    if n_wrong == 0:
        return ""
    index = tuple(int(i) for i in np.unravel_index(int(np.argmin(same)), same.shape))
    return (
        f"output '{output}' is {_value_text(got[index])} where the reference is "
        f"{_value_text(expected[index])}: {n_wrong} of {same.size} elements, the first at index "
        f"{index_text(answer.index_of(output, index))}"
    )


def _value_text(value: float) -> str:
    return "NaN" if np.isnan(value) else f"{value:.6g}"


def _special_note(expected: np.ndarray) -> str:
    n_special = expected.size - int(np.count_nonzero(np.isfinite(expected)))
    return f"NaN or infinity at the same {n_special} of {expected.size} elements" if n_special else ""


def _gate_failure(output: str, gates: Gates, numbers: Numbers, arrays: tuple[np.ndarray, np.ndarray]) -> str:
    limits = (("mse", numbers.mse, gates.mse), ("l2", numbers.l2, gates.l2))
    broken = [
        f"gate {name}: {figure(value)}, allowed {figure(limit)}"
        for name, value, limit in limits
        if limit is not None and value > limit
    ]
    if gates.rtol is not None or gates.atol is not None:
        broken += _closeness_failure(gates, *arrays)
    return f"output '{output}' breaks the {'; the '.join(broken)}" if broken else ""


def _closeness_failure(gates: Gates, expected: np.ndarray, got: np.ndarray) -> list[str]:
    limits = {"rtol": gates.rtol, "atol": gates.atol}
    text = ", ".join(f"{name} {figure(limit)}" for name, limit in limits.items() if limit is not None)
    finite = np.isfinite(expected)
    exact, mine = expected[finite].astype(np.float64), got[finite].astype(np.float64)
    far = np.abs(mine - exact) > (gates.atol or 0.0) + (gates.rtol or 0.0) * np.abs(exact)
    n_far = int(np.count_nonzero(far))
    return [f"gate {text}: {n_far} of {expected.size} elements are beyond it"] if n_far else []


def _margins(
    output: str, answer: Answer, got: np.ndarray, links: Iterable[Link]
) -> dict[Link, tuple[float, Floor]]:
    margins: dict[Link, tuple[float, Floor]] = {}
    for link in links:
        if link.choice != output:
            continue
        margin = largest_margin(link, answer.outputs, got)
        if margin is not None:
            margins[link] = margin, answer.floors[link.score]
    return margins


def judge(measured: Measured, floor: Floor | None, links: frozenset[Link]) -> Finding:
    """Judge one output of one case.

    Args:
        measured: What was found.
        floor: The floor it is held against: its own, or the pooled one of a small output.
        links: The choices of scores that held in every case.
    """
    failure, note = measured.failure, measured.note
    if measured.numbers is not None and floor is not None:
        broken = _floor_failure(measured.output, measured.numbers, floor)
        failure = "; ".join(text for text in (broken, failure) if text)
    elif measured.numbers is not None and measured.numbers.n_different:
        failure, note = _choice_judgement(measured, measured.numbers, links)
    return Finding(
        case=measured.place.case.name,
        case_kind=measured.place.case.kind,
        case_number=measured.place.number,
        n_cases=measured.place.n_cases,
        sizes=measured.place.case.sizes,
        output=measured.output,
        numbers=measured.numbers,
        floor=floor,
        passed=not failure,
        reason=failure or note,
    )


def _floor_failure(output: str, numbers: Numbers, floor: Floor) -> str:
    allowed, allowed_rms = MAX_ABS_MULTIPLE * floor.max_abs, RMS_MULTIPLE * floor.rms
    if numbers.max_abs > allowed:
        return f"output '{output}' is off by {figure(numbers.max_abs)}, allowed {figure(allowed)}"
    if numbers.rms > allowed_rms and numbers.n_elements >= MIN_RMS_ELEMENTS:
        return f"output '{output}' has an RMS error of {figure(numbers.rms)}, allowed {figure(allowed_rms)}"
    return ""


def _choice_judgement(measured: Measured, numbers: Numbers, links: frozenset[Link]) -> tuple[str, str]:
    """Return the failure, and the note of a whole-number output that differs."""
    wrong = (
        f"output '{measured.output}' differs in {numbers.n_different} of {numbers.n_elements} elements: "
        f"{numbers.got:.0f} where the reference is {numbers.expected:.0f}"
    )
    own = sorted(link for link in links if link.choice == measured.output)
    if not own:
        return wrong, ""
    # linked to several scores: the nearest decides, which of them made the choice is not known
    known = [(measured.margins or {}).get(link) for link in own]
    floors = [
        (m / f.max_abs, link.score)
        for found, link in zip(known, own, strict=True)
        if found
        for m, f in [found]
    ]
    if not floors:
        return f"{wrong}, and is no choice of '{own[0].score}' at all", ""
    margin, score = min(floors)
    allowed = 2 * MAX_ABS_MULTIPLE
    apart = f"the scores '{score}' of the two choices are {margin:.3g} floors apart"
    if margin < allowed:
        return "", (
            f"tie: {numbers.n_different} of {numbers.n_elements} elements differ, {apart}, "
            f"less than {allowed:.0f}"
        )
    return f"{wrong}, {apart}, a tie is less than {allowed:.0f}", ""


def figure(value: float) -> str:
    """Return a number as messages write it: ``3.1e-2``."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
