"""Which sizes of the named axes are tried."""

from __future__ import annotations

import pytest

from anyport.errors import UsageError
from anyport.tensors import Dim, TensorSpec, dim, tensor
from anyport.verify import CasePlan, SweepSettings, plan_cases
from anyport.verify.sizes import middle_size, sizes_text
from tests.verify.fakes import DIMS, INPUTS

IMAGE = (tensor("pixels", "float32[batch, 3, height, width]"),)
IMAGE_DIMS = {
    "batch": dim("batch", "1..64"),
    "height": dim("height", "64..1024:32"),
    "width": dim("width", "64..1024:32"),
}
DIGITS = (tensor("x", "float32[batch, 1, 8, 8]"),)
DIGITS_DIMS = {"batch": dim("batch", "1..64")}


def sizes_of(plan: CasePlan, name: str) -> set[int]:
    return {case.sizes[name] for case in plan.cases if name in case.sizes}


def names_of(plan: CasePlan) -> list[str]:
    return [case.name for case in plan.cases]


@pytest.mark.parametrize(
    ("sizes", "middle"), [("1..64", 33), ("64..1024:32", 544), ("1..2", 2), ("8..24:8", 16)]
)
def test_the_middle_is_a_size_of_the_range(sizes: str, middle: int) -> None:
    assert middle_size(dim("d", sizes)) == middle


def test_a_computed_axis_counts_with_its_names() -> None:
    inputs = (tensor("x", "float32[2*n, 4]"), tensor("y", "float32[n]"))
    plan = plan_cases(inputs, {"n": dim("n", "1..6")}, SweepSettings())
    for case in plan.cases:
        assert case.arrays(inputs)["x"].shape == (2 * case.sizes["n"], 4)


def test_a_dim_of_outputs_alone_is_not_tried() -> None:
    plan = plan_cases(DIGITS, {**DIGITS_DIMS, "elsewhere": dim("elsewhere", "1..9")}, SweepSettings())
    assert all(set(case.sizes) == {"batch"} for case in plan.cases)


def test_sizes_in_words() -> None:
    assert sizes_text({"batch": 2, "height": 384}) == "batch=2, height=384"


@pytest.mark.parametrize(("inputs", "dims"), [(INPUTS, DIMS), (IMAGE, IMAGE_DIMS), (DIGITS, DIGITS_DIMS)])
def test_every_dim_is_tried_at_least_middle_most_and_two_unseen(
    inputs: tuple[TensorSpec, ...], dims: dict[str, Dim]
) -> None:
    seen = {name: frozenset({one.low, one.low + one.step, one.high}) for name, one in dims.items()}
    plan = plan_cases(inputs, dims, SweepSettings(seen_sizes=seen, max_case_bytes=2**40))
    for name, one in dims.items():
        sizes = sizes_of(plan, name)
        assert {one.low, one.high, one.low + one.n_sizes // 2 * one.step} <= sizes
        assert len(sizes - seen[name]) >= 2
        assert all(one.holds(size) for size in sizes)
    assert len(plan.cases) <= 40
    assert len(set(names_of(plan))) == len(plan.cases)


@pytest.mark.parametrize(("inputs", "dims"), [(INPUTS, DIMS), (IMAGE, IMAGE_DIMS), (DIGITS, DIGITS_DIMS)])
@pytest.mark.parametrize("max_case_bytes", [2**18, 2**20, 2**26])
def test_no_case_is_larger_than_allowed(
    inputs: tuple[TensorSpec, ...], dims: dict[str, Dim], max_case_bytes: int
) -> None:
    plan = plan_cases(inputs, dims, SweepSettings(max_case_bytes=max_case_bytes))
    assert max(case.size_bytes(inputs) for case in plan.cases) <= max_case_bytes


def test_answers_count_too() -> None:
    """A layer may answer many times what it is given; what cannot be known beforehand does not count."""
    inputs = (tensor("states", "float32[batch, length, 8]"),)
    outputs = (tensor("keys", "float32[batch, 24, length, 64]"), tensor("boxes", "float32[batch, found, 4]"))
    dims = {"batch": dim("batch", "1..64"), "length": dim("length", "1..600")}
    settings = SweepSettings(max_case_bytes=2**20)
    largest = max(
        case.sizes["batch"] * case.sizes["length"] for case in plan_cases(inputs, dims, settings).cases
    )
    plan = plan_cases(inputs, dims, settings, (), outputs)
    bounded = max(case.sizes["batch"] * case.sizes["length"] for case in plan.cases)
    assert bounded * 24 * 64 * 4 <= 4 * 2**20 < largest * 24 * 64 * 4
    assert any(", the largest that fits)" in case.name for case in plan.cases)


def test_even_the_smallest_answer_may_be_large() -> None:
    inputs, outputs = (tensor("x", "float32[batch]"),), (tensor("y", "float32[batch, 4096]"),)
    plan = plan_cases(inputs, {"batch": dim("batch", "1..4")}, SweepSettings(max_case_bytes=16), (), outputs)
    assert {case.sizes["batch"] for case in plan.cases} == {1}


def test_the_largest_that_fits_is_named_so_and_is_nearly_the_limit() -> None:
    plan = plan_cases(IMAGE, IMAGE_DIMS, SweepSettings())
    largest = next(case for case in plan.cases if case.name.startswith("all largest"))
    assert largest.name.endswith(", the largest that fits)")
    assert largest.size_bytes(IMAGE) > 0.8 * 2**26
    alone = plan_cases(IMAGE, IMAGE_DIMS, SweepSettings(max_case_bytes=2**20))
    assert any(
        name.startswith("batch=") and name.endswith(" (the largest that fits)") for name in names_of(alone)
    )
    assert any(text.endswith(": above max_case_bytes") for text in alone.dropped)


def test_nothing_fits() -> None:
    with pytest.raises(
        UsageError, match=r"the smallest inputs take 0.0469 MiB, a case may take 0.000954 MiB"
    ) as err:
        plan_cases(IMAGE, IMAGE_DIMS, SweepSettings(max_case_bytes=1000))
    assert err.value.do == "raise --max-case-bytes"


def test_a_dim_with_few_sizes_says_that_none_is_unseen() -> None:
    plan = plan_cases(DIGITS, {"batch": dim("batch", "1..3")}, SweepSettings())
    assert plan.dropped == ("batch: 0 of 2 sizes that the export never saw (the range has no more)",)


def test_a_named_axis_needs_a_range() -> None:
    with pytest.raises(UsageError, match="axis 'time' of input 'x' has no range of sizes") as err:
        plan_cases([tensor("x", "float32[time]")], {}, SweepSettings())
    assert err.value.do == "declare it: --dim time=1..64"


@pytest.mark.parametrize("limits", [{"max_cases": 0}, {"max_case_bytes": 0}])
def test_limits_that_leave_nothing(limits: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="nothing is left"):
        SweepSettings(**limits)  # type: ignore[arg-type]
