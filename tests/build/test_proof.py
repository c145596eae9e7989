from __future__ import annotations

import numpy as np
from torch import nn

from anyport.build import BuildSettings
from anyport.build.proof import proof_of, recorder_of
from anyport.build.proving import Recorder
from anyport.cases import Case, Normal, Stored
from anyport.recipe import Part
from anyport.tensors import Signature, dim, tensor
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


def test_large_answers_are_sampled_and_kept_whole_for_the_build() -> None:
    recorder = Recorder(Fixed(), budget_bytes=1000, max_elements=5)
    recorder.answer(case("small", 2))
    recorder.answer(case("large", 40))
    assert [answer.outputs["y"].shape for _, answer in recorder.kept] == [(2, 2), (40, 2)]
    proof, arrays = proof_of({"network": recorder})
    assert [one.shapes for one in proof.parts["network"]] == [{}, {"y": [40, 2]}]
    assert [arrays[f"network/{name}/y"].shape for name in ("small", "large")] == [(2, 2), (5,)]
    assert recorder.omitted == []


def test_given_inputs_leave_half_of_a_proof_to_the_other_cases() -> None:
    recorder = Recorder(Fixed(), budget_bytes=400, max_elements=5)
    recorder.answer(case("mine", 2, np.zeros((2, 20), np.float32)))
    recorder.answer(case("more", 2, np.zeros((2, 20), np.float32)))
    for number in range(10):
        recorder.answer(case(f"case {number}", 40))
    assert recorder.omitted == ["more"]
    assert len(recorder.recorded) == 11


def part_of(*outputs: str) -> Part:
    specs = tuple(tensor(f"y{i}", text) for i, text in enumerate(outputs))
    inputs = (tensor("x", "float32[batch, 2]"),)
    return Part("network", nn.ReLU(), Signature(inputs, specs, {"batch": dim("batch", "1..8")}))


def test_samples_of_every_case_fit_the_budget() -> None:
    settings = BuildSettings(max_cases=40)
    wide = recorder_of(part_of(*["float32[batch, 900]"] * 25), settings, 6_000_000)
    assert wide.max_elements == 3_000_000 // (41 * 100)
    assert recorder_of(part_of("float32[batch, 9]"), settings, 10).max_elements == 256
    # an index is compared with the scores it was chosen by, all of them
    assert recorder_of(part_of("float32[batch, 9]", "int64[batch]"), settings, 10**6).max_elements is None


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
