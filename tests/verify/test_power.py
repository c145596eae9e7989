"""Power: a comparison that could not have shown a difference is no proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.errors import MismatchError
from anyport.tensors import TensorSpec, tensor
from anyport.verify import (
    Answer,
    CasePlan,
    Floor,
    PartSpec,
    Status,
    SweepSettings,
    Verdict,
    compare,
    plan_cases,
    typical_case,
)
from anyport.verify.power import PowerTape
from tests.verify.fakes import (
    DIMS,
    INPUTS,
    PART,
    Feeds,
    FunctionSession,
    Outputs,
    TwinReference,
    encoder,
    good,
    plan,
)

if TYPE_CHECKING:
    from collections.abc import Callable

A, B = tensor("a", "float32[batch, 4]"), tensor("b", "float32[batch, 4]")
Y = (tensor("y", "float32[batch, 4]"),)


def verdict_of(
    function: Callable[[Feeds, type], Outputs],
    inputs: tuple[TensorSpec, ...] = (A, B),
    outputs: tuple[TensorSpec, ...] = Y,
) -> Verdict:
    """Compare a function with itself: whatever is wrong is wrong with the power."""
    planned = plan_cases(inputs, DIMS, SweepSettings())
    candidate = FunctionSession(lambda feeds: function(feeds, np.float32), inputs, outputs)
    part = PartSpec("net", "fp32", inputs, outputs, DIMS)
    return compare(TwinReference(function, inputs), candidate, planned, part)


def lift(feeds: Feeds, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    return feeds["a"].astype(dtype), feeds["b"].astype(dtype)


def healthy(feeds: Feeds, dtype: type) -> Outputs:
    a, b = lift(feeds, dtype)
    return {"y": np.tanh(a) + b * dtype(0.1)}


def constant(feeds: Feeds, dtype: type) -> Outputs:
    a, b = lift(feeds, dtype)
    return {"y": dtype(1) + (a + b) * dtype(0)}


def faded(feeds: Feeds, dtype: type) -> Outputs:
    """Answer 6e-55, as the seeded MobileViT does: 0 in float32."""
    a, b = lift(feeds, dtype)
    return {"y": (a + b) * dtype(1e-30) * dtype(1e-25)}


def hardly(feeds: Feeds, dtype: type) -> Outputs:
    a, b = lift(feeds, dtype)
    return {"y": dtype(1) + (a + b) * dtype(1e-6)}


def deaf(feeds: Feeds, dtype: type) -> Outputs:
    a, _ = lift(feeds, dtype)
    return {"y": np.tanh(a)}


def nearly_deaf(feeds: Feeds, dtype: type) -> Outputs:
    a, b = lift(feeds, dtype)
    return {"y": np.tanh(a) + b * dtype(1e-7)}


def test_a_healthy_part_has_power() -> None:
    verdict = verdict_of(healthy)
    assert verdict.status is Status.PASS
    assert len(verdict.leg("power").details) == 3


def saturated(feeds: Feeds, dtype: type) -> Outputs:
    """As a deep network at four times the scale: one case in which float32 itself is far off."""
    off = dtype(0.01) if np.abs(feeds["a"]).max() > 4 and dtype is np.float32 else dtype(0)
    return {"y": healthy(feeds, dtype)["y"] + off}


def test_one_inexact_case_does_not_hide_what_the_others_show() -> None:
    verdict = verdict_of(saturated)
    assert verdict.status is Status.PASS, str(verdict)
    assert max(found.floor.max_abs for found in verdict.findings if found.floor is not None) > 0.009


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (constant, "output 'y' is the same in 7 different cases: a constant would pass"),
        (faded, "output 'y' is the same in 7 different cases: a constant would pass"),
        (
            hardly,
            r"output 'y' moves only [\d.]+ floors over 7 cases, 1000 are needed: a wrong graph would pass",
        ),
        (
            deaf,
            ("no output reacts to input 'b' by more than 0 floors, 64 are needed: a graph that ignores it "
            "would pass"),
        ),
        (nearly_deaf, r"no output reacts to input 'b' by more than [\d.]+ floors, 64 are needed: "),
    ],
)  # fmt: skip
def test_too_little_power_is_inconclusive(function: Callable[[Feeds, type], Outputs], words: str) -> None:
    verdict = verdict_of(function)
    assert verdict.leg("values").status is Status.PASS
    assert verdict.status is Status.INCONCLUSIVE
    with pytest.raises(MismatchError, match=f"^the verdict is inconclusive: {words}") as err:
        verdict.raise_if_bad()
    assert err.value.do is not None
    assert "[cases] function" in err.value.do
    verdict.raise_if_bad(allow_inconclusive=True)


def test_one_dead_output_beside_a_healthy_one_is_named() -> None:
    def function(feeds: Feeds, dtype: type) -> Outputs:
        return healthy(feeds, dtype) | {"dead": constant(feeds, dtype)["y"]}

    outputs = (*Y, tensor("dead", "float32[batch, 4]"))
    verdict = verdict_of(function, outputs=outputs)
    assert (
        verdict.leg("power").line == "output 'dead' is the same in 7 different cases: a constant would pass"
    )


def test_a_wrong_graph_behind_a_dead_output_is_what_power_is_for() -> None:
    planned = plan_cases((A, B), DIMS, SweepSettings())
    wrong = FunctionSession(lambda feeds: {"y": np.zeros_like(feeds["a"])}, (A, B), Y)
    part = PartSpec("net", "fp32", (A, B), Y, DIMS)
    verdict = compare(TwinReference(faded, (A, B)), wrong, planned, part)
    assert verdict.leg("values").status is Status.PASS
    assert verdict.status is Status.INCONCLUSIVE


def test_every_input_of_the_encoder_is_felt_and_the_label_has_its_scores_power() -> None:
    verdict = compare(TwinReference(), FunctionSession(good), plan(), PART)
    details = {text.split(":")[0]: text.split(": ")[1] for text in verdict.leg("power").details}
    assert set(details) == {
        "output 'logits'",
        "output 'label'",
        "input 'ids'",
        "input 'mask'",
        "input 'bias'",
    }
    assert details["output 'label'"] == details["output 'logits'"]


def whole_numbers(feeds: Feeds, _: type) -> Outputs:
    return {"y": feeds["a"].astype(np.int64) + feeds["b"].astype(np.int64)}


def test_whole_numbers_must_change() -> None:
    outputs = (tensor("y", "int64[batch, 4]"),)
    assert verdict_of(whole_numbers, outputs=outputs).status is Status.PASS
    verdict = verdict_of(lambda feeds, dtype: {"y": whole_numbers(feeds, dtype)["y"] * 0}, outputs=outputs)
    assert verdict.leg("power").line.startswith("output 'y' is the same in 7 different cases")
    deaf_one = verdict_of(lambda feeds, _: {"y": feeds["a"].astype(np.int64)}, outputs=outputs)
    assert deaf_one.leg("power").line.startswith("no output reacts to input 'b' by more than 0 floors")


def test_a_choice_of_a_dead_score_is_dead() -> None:
    outputs = (tensor("score", "float32[batch, 4]"), tensor("choice", "int64[batch]"))

    def function(feeds: Feeds, dtype: type) -> Outputs:
        score = hardly(feeds, dtype)["y"]
        return {"score": score, "choice": np.argmax(score, axis=1)}

    verdict = verdict_of(function, outputs=outputs)
    assert any(
        text.startswith("output 'choice' is the choice of 'score': ") for text in verdict.leg("power").details
    )


def test_too_few_cases_are_inconclusive_with_the_reason() -> None:
    one = CasePlan(plan().cases[:1], ())
    leg = compare(TwinReference(), FunctionSession(good), one, PART).leg("power")
    assert leg.status is Status.INCONCLUSIVE
    assert leg.line == (
        "no two cases have an output 'logits' of one shape, so nothing says that it reacts (and 4 more)"
    )
    assert "no two cases differ in input 'mask' alone, so nothing says that it is used" in leg.details


def test_stored_arrays_are_compared_by_their_values() -> None:
    feeds = plan().cases[0].arrays(INPUTS)
    other = feeds | {"bias": feeds["bias"] * 2}
    third = other | {"ids": (feeds["ids"] + 1) % 50}
    fourth = third | {"mask": np.ones_like(feeds["mask"])}
    cases = [
        typical_case(f"own {i}", one, INPUTS, DIMS) for i, one in enumerate((feeds, other, third, fourth))
    ]
    verdict = compare(TwinReference(), FunctionSession(good), CasePlan(tuple(cases), ()), PART)
    assert verdict.leg("power").status is Status.PASS, str(verdict.leg("power"))
    same = [typical_case(f"own {i}", feeds, INPUTS, DIMS) for i in range(3)]
    verdict = compare(TwinReference(), FunctionSession(good), CasePlan(tuple(same), ()), PART)
    assert verdict.leg("power").status is Status.INCONCLUSIVE


def test_only_a_sample_of_cases_of_equal_sizes_is_kept() -> None:
    big = np.arange(2**20, dtype=np.float32)
    part = PartSpec("net", "fp32", (A,), (tensor("y", "float32[n]"),), DIMS)
    cases = plan_cases((A,), DIMS, SweepSettings()).cases
    tape = PowerTape(part, cases)
    for case in cases:
        tape.keep(case, Answer({"y": big}, {"y": Floor(1.0, 1.0, "given")}))
    kept = {entry.case.name for entry in tape._entries}
    assert "random 1" in kept
    assert "batch=3" not in kept
    assert {entry.samples["y"].size for entry in tape._entries} == {2**18}


@pytest.mark.parametrize("power", [-60, -10, 10, 60])
def test_power_does_not_depend_on_the_scale(power: int) -> None:
    def function(feeds: Feeds, dtype: type) -> Outputs:
        found = encoder(feeds, dtype)
        return found | {"logits": found["logits"] * dtype(2.0**power)}

    def leg(run: Callable[[Feeds, type], Outputs]) -> tuple[str, ...]:
        candidate = FunctionSession(lambda feeds: run(feeds, np.float32))
        return compare(TwinReference(run), candidate, plan(), PART).leg("power").details

    assert leg(function) == leg(encoder)
