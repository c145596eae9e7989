"""Values: clean candidates pass, every planted fault is seen and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from anyport.cases import Case, Normal
from anyport.errors import MismatchError, SessionError
from anyport.tensors import TensorSpec, tensor
from anyport.verify import (
    Answer,
    CasePlan,
    Finding,
    Floor,
    Gates,
    PartSpec,
    Status,
    SweepSettings,
    Verdict,
    compare,
    plan_cases,
)
from tests.verify.fakes import PART, Feeds, FunctionSession, Outputs, TwinReference, encoder, f32, good, plan

PLAN = plan()
Change = Callable[[Outputs], Outputs]


def verdict_on(function: Callable[[Feeds], Outputs], gates: Gates | None = None) -> Verdict:
    return compare(TwinReference(), FunctionSession(function), PLAN, PART, gates or Gates())


@pytest.mark.parametrize("seed", range(6))
def test_a_clean_candidate_passes(seed: int) -> None:
    verdict = compare(TwinReference(), FunctionSession(good), plan(seed), PART)
    assert verdict.status is Status.PASS, verdict.table()
    verdict.raise_if_bad()
    assert max(found.ratio_max for found in verdict.findings) < 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_reference_itself_passes(dtype: type) -> None:
    def rounded(feeds: Feeds) -> Outputs:
        found = encoder(feeds, dtype)
        return found | {"logits": found["logits"].astype(np.float32)}

    assert verdict_on(rounded).status is Status.PASS


def changed_inputs(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[Feeds], Outputs]:
    return lambda feeds: encoder({n: changes[n](a) if n in changes else a for n, a in feeds.items()})


def one_logit(value: float) -> Callable[[Feeds], Outputs]:
    def run(feeds: Feeds) -> Outputs:
        found = good(feeds)
        found["logits"][-1, 3] = value
        return found

    return run


def without_the_third_row(feeds: Feeds) -> Outputs:
    """Answer as a graph whose batch was fixed at 2."""
    found = good(feeds)
    found["logits"][2:] = 0
    return found


FAULTS: dict[str, tuple[Callable[[Feeds], Outputs], str]] = {
    "eps": (
        lambda feeds: encoder(feeds, eps=1e-2),
        r"output 'logits' is off by 2\.\de-1, allowed \d\.\de-6",
    ),
    "scale": (lambda feeds: scaled(good(feeds), 1.00001), "output 'logits' is off by .*, allowed"),
    "mask ignored": (changed_inputs(mask=np.ones_like), "output 'logits' is off by"),
    "bias ignored": (changed_inputs(bias=np.zeros_like), "output 'logits' is off by"),
    "batch fixed": (without_the_third_row, "output 'logits' is off by"),
    "nan": (
        one_logit(np.nan),
        r"output 'logits' is NaN where the reference is -?[\d.]+: 1 of \d+ elements, the first at index \(",
    ),
    "infinite": (
        one_logit(np.inf),
        r"output 'logits' is inf where the reference is -?[\d.]+: 1 of \d+ elements",
    ),
    "missing": (
        lambda feeds: {"label": good(feeds)["label"]},
        "output 'logits' is missing: the graph answers 'label'",
    ),
    "nothing": (lambda _: {}, "output 'logits' is missing: the graph answers nothing"),
    "shape": (
        lambda feeds: mapped(feeds, lambda a: a[:, :9]),
        r"output 'logits' has the shape \(2, 9\), the reference's \(2, 10\)",
    ),
    "broadcast": (
        lambda feeds: mapped(feeds, lambda a: a[:1, :]),
        r"output 'logits' has the shape \(1, 10\), the reference's \(2, 10\)",
    ),
    "dtype": (
        lambda feeds: mapped(feeds, lambda a: a.astype(np.float64)),
        "output 'logits' is float64, the reference's is float32",
    ),
    "label": (
        lambda feeds: good(feeds) | {"label": good(feeds)["label"] * 0},
        (
            r"output 'label' differs in \d of \d+ elements: 0 where the reference is \d, the scores "
            "'logits' of the two choices are .* floors apart, a tie is less than 16"
        ),
    ),
    "label beyond": (
        lambda feeds: good(feeds) | {"label": good(feeds)["label"] + 100},
        "and is no choice of 'logits' at all",
    ),
    "label negative": (
        lambda feeds: good(feeds) | {"label": good(feeds)["label"] - 10},
        "and is no choice of 'logits' at all",
    ),
}


def scaled(outputs: Outputs, by: float) -> Outputs:
    return outputs | {"logits": (outputs["logits"] * f32(by)).astype(np.float32)}


def mapped(feeds: Feeds, change: Callable[[np.ndarray], np.ndarray]) -> Outputs:
    found = good(feeds)
    return found | {"logits": change(found["logits"])}


@pytest.mark.parametrize(("function", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_seen_and_named(function: Callable[[Feeds], Outputs], words: str) -> None:
    verdict = verdict_on(function)
    assert verdict.status is Status.FAIL
    assert verdict.leg("values").status is Status.FAIL
    with pytest.raises(MismatchError, match=words):
        verdict.raise_if_bad(allow_inconclusive=True)


def test_a_fault_in_one_case_alone_names_the_case() -> None:
    def run(feeds: Feeds) -> Outputs:
        found = good(feeds)
        if len(feeds["ids"]) == 5:
            found["logits"][4, 7] += 0.5
        return found

    with pytest.raises(MismatchError) as err:
        verdict_on(run).raise_if_bad()
    assert err.value.what.startswith("output 'logits' is off by 5.0e-1, allowed ")
    assert err.value.where == (
        "part encoder, variant fp32, case 22 of 29 'batch=5' (batch=5, sequence=9), index (4, 7)"
    )
    assert err.value.do == "anyport verify m.port --part encoder --json   shows every output and case"


@pytest.mark.parametrize(
    "error",
    [SessionError("out of memory"), RuntimeError("Reshape:\n  cannot"), ValueError(), MemoryError("no")],
)
def test_a_candidate_that_raises_is_a_finding(error: Exception) -> None:
    def run(feeds: Feeds) -> Outputs:
        if feeds["ids"].shape == (8, 32):
            raise error
        return good(feeds)

    verdict = verdict_on(run)
    assert [found.case for found in verdict.findings if not found.passed] == [
        "all largest (batch=8, sequence=32)"
    ] * 2
    words = " ".join(str(error).split()) or "ValueError"
    assert verdict.worst is not None
    assert verdict.worst.reason == f"the graph does not run: {words}"


def test_ctrl_c_is_no_finding() -> None:
    def run(_: Feeds) -> Outputs:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verdict_on(run)


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        (Gates(atol=1e-9), r"output 'logits' breaks the gate atol 1.0e-9: \d+ of \d+ elements are beyond it"),
        (Gates(rtol=1e-9, atol=1e-12), r"breaks the gate rtol 1.0e-9, atol 1.0e-12: \d+ of"),
        (Gates(mse=1e-20), r"breaks the gate mse: \d.\de-1\d, allowed 1.0e-20"),
        (Gates(l2=1e-9), r"breaks the gate l2: \d.\de-\d, allowed 1.0e-9"),
        (Gates(mse=1e-20, l2=1e-9), "breaks the gate mse: .*; the gate l2: "),
    ],
)
def test_gates_fail_with_their_own_words(gates: Gates, words: str) -> None:
    with pytest.raises(MismatchError, match=words):
        verdict_on(good, gates).raise_if_bad()


def test_gates_that_hold_change_nothing_and_never_widen_the_floor() -> None:
    wide = Gates(rtol=1.0, atol=1.0, mse=1.0, l2=1.0)
    assert verdict_on(good, wide) == verdict_on(good)
    assert verdict_on(lambda feeds: scaled(good(feeds), 1.001), wide).status is Status.FAIL


def test_the_order_of_cases_changes_nothing() -> None:
    def numbered(verdict: Verdict) -> list[Finding]:
        found = [replace(one, case_number=0) for one in verdict.findings]
        return sorted(found, key=lambda one: (one.case, one.output))

    for function in (good, lambda feeds: scaled(good(feeds), 1.00001)):
        one = verdict_on(function)
        shuffled = CasePlan(
            tuple(PLAN.cases[i] for i in np.random.default_rng(0).permutation(len(PLAN.cases))), ()
        )
        other = compare(TwinReference(), FunctionSession(function), shuffled, PART)
        assert numbered(one) == numbered(other)
        assert [leg.status for leg in one.legs] == [leg.status for leg in other.legs]
        assert one.leg("power").details == other.leg("power").details


@pytest.mark.parametrize("power", [-40, -3, 5, 30])
def test_scaling_the_outputs_changes_no_judgement(power: int) -> None:
    factor = 2.0**power

    def function(feeds: Feeds, dtype: type) -> Outputs:
        found = encoder(feeds, dtype)
        return found | {"logits": found["logits"] * dtype(factor)}

    candidate = FunctionSession(lambda feeds: scaled(good(feeds), factor))
    verdict = compare(TwinReference(function), candidate, PLAN, PART)
    plain = verdict_on(good)
    assert verdict.status is plain.status
    for one, other in zip(verdict.findings, plain.findings, strict=True):
        assert one.ratio_max == pytest.approx(other.ratio_max)
        assert one.ratio_rms == pytest.approx(other.ratio_rms)


# ── references that are broken themselves ───────────────────────────────────────────────────────────────

X = (tensor("x", "float32[batch, 4]"),)
Y = (tensor("y", "float32[batch, 4]"),)


class Constants:
    """A reference that changes the answers of some cases."""

    def __init__(self, change: Callable[[Case, np.ndarray], np.ndarray], floor: float = 1e-6) -> None:
        self._change, self._floor = change, floor

    def answer(self, case: Case) -> Answer:
        y = self._change(case, case.arrays(X)["x"])
        return Answer({"y": y}, {"y": Floor(self._floor, self._floor, "given")})


def small(
    change: Callable[[Case, np.ndarray], np.ndarray],
    run: Callable[[np.ndarray], np.ndarray],
    floor: float = 1e-6,
) -> Verdict:
    candidate = FunctionSession(lambda feeds: {"y": run(feeds["x"])}, X, Y)
    return compare(Constants(change, floor), candidate, small_plan(), PartSpec("net", "fp32", X, Y))


def small_plan() -> CasePlan:
    sizes = {"batch": 2}
    cases = [Case(f"random {i}", "random", sizes, {"x": Normal(i)}, {}) for i in range(3)]
    return CasePlan((*cases, Case("edge", "boundary", sizes, {"x": Normal(9)}, {})), ())


def with_special(name: str, value: float) -> Callable[[Case, np.ndarray], np.ndarray]:
    def change(case: Case, x: np.ndarray) -> np.ndarray:
        y = x.copy()
        if case.name == name:
            y[1, 2] = value
        return y

    return change


@pytest.mark.parametrize(("value", "words"), [(np.nan, "answers NaN"), (-np.inf, "answers infinity")])
def test_a_reference_that_is_not_finite_is_an_error_of_its_own(value: float, words: str) -> None:
    with pytest.raises(MismatchError) as err:
        small(with_special("random 1", value), lambda x: x)
    assert err.value.what == f"the PyTorch model itself {words} on case 'random 1', output 'y', index (1, 2)"
    assert err.value.where == "part net, variant fp32"


def test_a_reference_that_overflows_in_float32_is_an_error_of_its_own() -> None:
    with pytest.raises(MismatchError, match="itself overflows in float32 on case 'random 0', output 'y'\n"):
        small(lambda _, x: x, lambda x: x, floor=np.inf)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_at_the_boundary_special_values_must_be_the_same(value: float) -> None:
    change = with_special("edge", value)
    edge = CasePlan(small_plan().cases, ()).cases[3].arrays(X)["x"]

    def same(x: np.ndarray) -> np.ndarray:
        return change(small_plan().cases[3], x) if np.array_equal(x, edge) else x

    found = small(change, same).findings[3]
    assert found.passed
    assert found.reason == "NaN or infinity at the same 1 of 8 elements"
    other = small(change, lambda x: -same(-x) if np.isinf(value) else x).findings[3]
    assert not other.passed


def test_where_float32_overflows_at_the_boundary_nothing_is_compared_and_it_is_said() -> None:
    class Overflowing(Constants):
        def answer(self, case: Case) -> Answer:
            floor = np.inf if case.kind == "boundary" else 1e-6
            return Answer({"y": case.arrays(X)["x"]}, {"y": Floor(floor, floor, "given")})

    def run(feeds: Feeds) -> Outputs:
        return {"y": feeds["x"] if not np.array_equal(feeds["x"], edge) else feeds["x"] * np.nan}

    edge = small_plan().cases[3].arrays(X)["x"]
    candidate = FunctionSession(run, X, Y)
    verdict = compare(Overflowing(lambda _, x: x), candidate, small_plan(), PartSpec("net", "fp32", X, Y))
    assert verdict.findings[3].reason == "float32 itself overflows here: nothing to compare with"
    assert verdict.leg("values").status is Status.PASS
    json.dumps(verdict.to_json(), allow_nan=False)


def test_a_reference_without_an_output_or_a_floor() -> None:
    missing = (*Y, tensor("z", "float32[batch]"))
    part = PartSpec("net", "fp32", X, missing, reference="other.onnx")
    candidate = FunctionSession(lambda feeds: {"y": feeds["x"]}, X, Y)
    with pytest.raises(MismatchError, match=r"other\.onnx gives no output 'z'"):
        compare(Constants(lambda _, x: x), candidate, small_plan(), part)

    class Bare(Constants):
        def answer(self, case: Case) -> Answer:
            return Answer(super().answer(case).outputs, {})

    with pytest.raises(MismatchError, match="gives no floor for the float output 'y'"):
        compare(Bare(lambda _, x: x), candidate, small_plan(), PartSpec("net", "fp32", X, Y))


def test_no_case_proves_nothing() -> None:
    verdict = compare(TwinReference(), FunctionSession(good), CasePlan((), ()), PART)
    assert verdict.status is Status.INCONCLUSIVE
    with pytest.raises(MismatchError, match="the verdict is inconclusive: no case was run"):
        verdict.raise_if_bad()


def test_only_whole_numbers() -> None:
    x: tuple[TensorSpec, ...] = (tensor("x", "int64[batch, 4] 0..99"),)
    y = (tensor("y", "int64[batch, 4]"), tensor("odd", "bool[batch, 4]"))

    def function(feeds: Feeds, _: type = float) -> Outputs:
        return {"y": feeds["x"] * 2, "odd": feeds["x"] % 2 == 1}

    part = PartSpec("net", "fp32", x, y, {})
    planned = CasePlan(plan_cases(x, {"batch": PART.dims["batch"]}, SweepSettings()).cases, ())
    verdict = compare(TwinReference(function, x), FunctionSession(function, x, y), planned, part)
    assert verdict.status is Status.PASS, verdict.table()
    assert verdict.leg("values").line == f"{2 * len(planned.cases)} whole-number outputs are equal"
    wrong = FunctionSession(lambda feeds: function(feeds) | {"odd": feeds["x"] % 2 == 0}, x, y)
    assert compare(TwinReference(function, x), wrong, planned, part).worst.reason.startswith(  # type: ignore[union-attr]
        "output 'odd' differs in "
    )
