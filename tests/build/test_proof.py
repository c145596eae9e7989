from __future__ import annotations

import numpy as np

from anyport.build.proof import proof_of
from anyport.build.proving import Recorder
from anyport.cases import Case, Normal, Stored
from anyport.verify import Answer, Floor


class Fixed:
    def __init__(self, floor: float = 1e-6) -> None:
        self.floor = floor

    def answer(self, case: Case) -> Answer:
        rows = case.sizes["batch"]
        return Answer({"y": np.ones((rows, 2), np.float32)}, {"y": Floor(self.floor, self.floor, "test")})


def case(name: str, rows: int, stored: np.ndarray | None = None) -> Case:
    if stored is None:
        return Case(name, "random", {"batch": rows}, {"x": Normal(1)}, {})
    return Case(name, "typical", {"batch": rows}, {"x": Stored("given/x")}, {"given/x": stored})


def test_answers_are_kept_until_the_budget_is_used_and_the_rest_is_named() -> None:
    recorder = Recorder(Fixed(), budget_bytes=30)
    for number, rows in enumerate((2, 4, 1)):
        recorder.answer(case(f"case {number}", rows))
    assert [c.name for c, _ in recorder.kept] == ["case 0", "case 2"]
    assert recorder.omitted == ["case 1"]


def test_a_case_whose_floor_is_infinite_is_not_kept() -> None:
    recorder = Recorder(Fixed(np.inf), budget_bytes=1000)
    recorder.answer(case("overflow", 1))
    assert (recorder.kept, recorder.omitted) == ([], ["overflow"])


def test_a_proof_names_every_array_once() -> None:
    recorder = Recorder(Fixed(), budget_bytes=1000)
    recorder.answer(case("one", 1))
    recorder.answer(case("mine", 2, np.zeros((2, 3), np.float32)))
    proof, arrays = proof_of({"network": recorder})
    assert sorted(arrays) == ["network/given/x", "network/mine/y", "network/one/y"]
    assert proof.parts["network"][1].fills == {"x": Stored("network/given/x")}
    assert [c.name for c in proof.parts["network"]] == ["one", "mine"]
    assert proof.parts["network"][0].floors["y"].max_abs == 1e-6
    assert (proof.tolerance.max_abs_multiple, proof.tolerance.rms_multiple) == (8, 4)
