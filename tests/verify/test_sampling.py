"""A proof that keeps samples of large answers is replayed like any other, and still sees wrong graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from anyport.bundle import ProofCase, RecordedFloor
from anyport.bundle.proof import sample_of
from anyport.verify import PartSpec, RecordedReference, Status, compare
from anyport.verify.sampling import SampledSession
from tests.verify.fakes import (
    DIMS,
    INPUTS,
    OUTPUTS,
    Feeds,
    Function,
    FunctionSession,
    Outputs,
    TwinReference,
    encoder,
    plan,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyport.verify import Verdict

N = 9
LOGITS = OUTPUTS[:1]
PART = PartSpec("encoder", "fp32", INPUTS, LOGITS, DIMS)


def logits(feeds: Feeds, dtype: type) -> Outputs:
    return {"logits": encoder(feeds, dtype)["logits"]}


def good(feeds: Feeds) -> Outputs:
    return {"logits": encoder(feeds, flip=True)["logits"]}


def recorded() -> tuple[list[ProofCase], dict[str, np.ndarray]]:
    """Record the answers to a plan, a sample of 9 elements of each that has more."""
    cases: list[ProofCase] = []
    arrays: dict[str, np.ndarray] = {}
    for case in plan().cases:
        answer = TwinReference(logits).answer(case)
        keys = {name: f"{case.name}/{name}" for name in answer.outputs}
        shapes = {name: list(a.shape) for name, a in answer.outputs.items() if a.size > N}
        for name, array in answer.outputs.items():
            arrays[keys[name]] = sample_of(array, N) if name in shapes else array
        floors = {n: RecordedFloor(f.max_abs, f.rms, f.how) for n, f in answer.floors.items()}
        fills, sizes = dict(case.fills), dict(case.sizes)
        cases.append(ProofCase(case.name, case.kind, sizes, fills, keys, floors, shapes))
    return cases, arrays


def status_of(function: Function) -> Status:
    cases, arrays = recorded()
    assert all(case.shapes for case in cases)
    assert msgspec.json.decode(msgspec.json.encode(cases), type=list[ProofCase]) == cases
    session = FunctionSession(function, INPUTS, LOGITS)
    sampled = SampledSession(session, cases, arrays)
    assert (sampled.inputs, sampled.outputs) == (INPUTS, LOGITS)
    verdict = compare(RecordedReference(cases, arrays), sampled, plan(), PART)
    sampled.close()
    return verdict.status


def test_an_equal_graph_passes_with_power() -> None:
    assert status_of(good) is Status.PASS


def wrong(feeds: Feeds) -> Outputs:
    return {"logits": good(feeds)["logits"] * np.float32(1.001)}


def longer(feeds: Feeds) -> Outputs:
    return {"logits": np.concatenate([good(feeds)["logits"]] * 2)}


def test_wrong_numbers_and_shapes_fail() -> None:
    assert status_of(wrong) is Status.FAIL
    assert status_of(longer) is Status.FAIL


def replayed(change: Callable[[np.ndarray], None]) -> Verdict:
    """Replay the record with a graph whose answers of three rows are changed."""

    def changed(feeds: Feeds) -> Outputs:
        found = good(feeds)
        if len(found["logits"]) == 3:
            change(found["logits"])
        return found

    cases, arrays = recorded()
    session = SampledSession(FunctionSession(changed, INPUTS, LOGITS), cases, arrays)
    return compare(RecordedReference(cases, arrays), session, plan(), PART)


def off(logits: np.ndarray) -> None:
    logits[1, 3] += 1  # element 13 of 30: the fourth of a sample of nine


def not_a_number(logits: np.ndarray) -> None:
    logits[1, 3] = np.nan


def test_the_message_names_the_place_in_the_whole_answer() -> None:
    worst = replayed(off).worst
    assert worst is not None
    assert worst.numbers is not None
    assert worst.numbers.index == (1, 3)
    assert worst.where.endswith("index (1, 3)")
    worst = replayed(not_a_number).worst
    assert worst is not None
    assert worst.reason.endswith("1 of 9 elements, the first at index (1, 3)")


def test_a_wrong_shape_is_held_against_that_of_the_whole_answer() -> None:
    cases, arrays = recorded()
    session = SampledSession(FunctionSession(longer, INPUTS, LOGITS), cases, arrays)
    findings = compare(RecordedReference(cases, arrays), session, plan(), PART).findings
    recorded_sizes = {finding.sizes["batch"] for finding in findings}
    odd = [one for one in findings if 2 * one.sizes["batch"] not in recorded_sizes]
    assert odd
    for finding in odd:
        n = finding.sizes["batch"]
        assert finding.reason == f"output 'logits' has the shape ({2 * n}, 10), the reference's ({n}, 10)"
