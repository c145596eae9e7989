"""A proof that keeps samples of large answers is replayed like any other, and still sees wrong graphs."""

from __future__ import annotations

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
