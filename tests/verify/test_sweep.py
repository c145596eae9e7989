"""Which cases are planned."""

from __future__ import annotations

import numpy as np
import pytest

from anyport.cases import Constant, Padding
from anyport.errors import InputError, UsageError
from anyport.tensors import dim, tensor
from anyport.verify import CasePlan, SweepSettings, describe_cases, plan_cases, typical_case
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


def test_digits_plan_is_what_the_documentation_shows() -> None:
    plan = plan_cases(DIGITS, DIGITS_DIMS, SweepSettings(seen_sizes={"batch": frozenset({2, 3})}))
    assert str(plan).splitlines() == [
        "12 cases, batch 1, 2, 4, 5, 33, 64",
        "  random    random 1",
        "  random    random 2",
        "  random    random 3",
        "  random    all unseen (batch=5)",
        "  boundary  all largest (batch=64)",
        "  boundary  all least (batch=1)",
        "  random    batch=4",
        "  random    batch=33",
        "  random    scale 0.1",
        "  random    scale 4",
        "  boundary  zeros",
        "  boundary  extreme values",
    ]


def test_same_seed_same_plan_other_seed_other_inputs() -> None:
    one, two, other = (plan_cases(INPUTS, DIMS, SweepSettings(seed=seed)) for seed in (1, 1, 2))
    assert one == two
    assert [case.sizes for case in one.cases] == [case.sizes for case in other.cases]
    assert one.cases[0].fills != other.cases[0].fills


def test_for_each_input_one_case_differs_from_the_first_in_it_alone() -> None:
    plan = plan_cases(INPUTS, DIMS, SweepSettings())
    first = plan.cases[0].arrays(INPUTS)
    for spec in INPUTS:
        case = next(case for case in plan.cases if case.name == f"only {spec.name} differs")
        arrays = case.arrays(INPUTS)
        assert [n for n in arrays if not np.array_equal(arrays[n], first[n])] == [spec.name]


def test_one_input_needs_no_case_of_its_own() -> None:
    plan = plan_cases(DIGITS, DIGITS_DIMS, SweepSettings())
    assert not any(name.startswith("only") for name in names_of(plan))


def test_masks_are_right_padded_and_one_row_is_padded_fully() -> None:
    plan = plan_cases(INPUTS, DIMS, SweepSettings())
    for case in plan.cases:
        mask = case.arrays(INPUTS)["mask"]
        fill = case.fills["mask"]
        if isinstance(fill, Padding) and not fill.empty_row and not fill.left:
            assert (mask.sum(axis=1) >= 1).all()
            assert (np.diff(mask, axis=1) <= 0).all()
    row = next(case for case in plan.cases if case.name == "mask with a fully padded row")
    sums = row.arrays(INPUTS)["mask"].sum(axis=1)
    assert row.sizes["batch"] >= 2
    assert sums[-1] == 0
    assert sums[0] > 0
    left = next(case for case in plan.cases if case.name == "mask padded at the left").arrays(INPUTS)["mask"]
    assert (np.diff(left, axis=1) >= 0).all()
    assert {"mask of ones", "mask of zeros"} <= set(names_of(plan))


def test_a_mask_of_one_axis_and_one_of_none() -> None:
    inputs = (tensor("x", "float32[4]"), tensor("keep", "bool[4]"), tensor("flag", "bool[]"))
    plan = plan_cases(inputs, {}, SweepSettings())
    assert "mask with a fully padded row" in names_of(plan)
    only = next(case for case in plan.cases if case.name == "only flag differs")
    assert only.fills["flag"] == Constant(0)


def test_fixed_inputs_have_no_sizes_to_try() -> None:
    plan = plan_cases([tensor("x", "float32[1, 4]")], {}, SweepSettings())
    assert names_of(plan) == [
        "random 1",
        "random 2",
        "random 3",
        "scale 0.1",
        "scale 4",
        "zeros",
        "extreme values",
    ]
    assert describe_cases(plan.cases) == "7 cases"


def test_ranged_inputs_are_tried_at_both_ends() -> None:
    inputs = (tensor("ids", "int64[4] 3..9"), tensor("t", "float32[] 0..1000"))
    plan = plan_cases(inputs, {}, SweepSettings())
    for name, ids, t in (("zeros", None, 0), ("least values", 3, 0), ("most values", 9, 1000)):
        arrays = next(case for case in plan.cases if case.name == name).arrays(inputs)
        assert arrays["t"] == t
        assert ids is None or (arrays["ids"] == ids).all()
    assert all((case.arrays(inputs)["ids"] >= 3).all() for case in plan.cases)
    assert not any(name.startswith(("scale", "extreme")) for name in names_of(plan))


def test_whole_numbers_need_a_range() -> None:
    with pytest.raises(UsageError) as err:
        plan_cases([tensor("input_ids", "int64[batch, sequence]")], DIMS, SweepSettings())
    assert str(err.value) == (
        "input 'input_ids' is int64[batch, sequence]: nothing says which whole numbers it takes\n"
        '  do:    write the least and the largest, such as input_ids = "int64[batch, sequence] 0..30521"'
    )


def own_case(name: str, size: int = 2) -> dict[str, np.ndarray]:
    return {"x": np.full((size, 1, 8, 8), len(name), dtype=np.float32)}


def test_the_users_cases_come_first_and_are_typical() -> None:
    given = [typical_case(name, own_case(name), DIGITS, DIGITS_DIMS) for name in ("seven", "random 1")]
    plan = plan_cases(DIGITS, DIGITS_DIMS, SweepSettings(), given)
    assert [(case.name, case.kind) for case in plan.cases[:3]] == [
        ("seven", "typical"),
        ("random 1", "typical"),
        ("random 1 (planned)", "random"),
    ]


@pytest.mark.parametrize(
    ("n_given", "limit", "n_kept"), [(5, 40, 5), (100, 10, 5), (30, 40, 28), (100, 4, 2)]
)
def test_number_of_cases_is_bounded_and_what_is_dropped_is_said(
    n_given: int, limit: int, n_kept: int
) -> None:
    given = [typical_case(f"own {i}", own_case("x"), DIGITS, DIGITS_DIMS) for i in range(n_given)]
    settings = SweepSettings(max_cases=limit)
    n_made = len(plan_cases(DIGITS, DIGITS_DIMS, SweepSettings()).cases)
    plan = plan_cases(DIGITS, DIGITS_DIMS, settings, given)
    assert len(plan.cases) == max(n_kept + 3, min(limit, n_given + n_made))
    assert sum(case.kind == "typical" for case in plan.cases) == n_kept
    assert len([text for text in plan.dropped if "max_cases" in text]) == n_given + n_made - len(plan.cases)


def test_what_is_kept_under_a_bound_is_the_beginning() -> None:
    whole = plan_cases(INPUTS, DIMS, SweepSettings())
    n_needed = 3 + len(INPUTS)  # three random ones, and for each input one in which it alone differs
    for limit in (1, n_needed, 11):
        part = plan_cases(INPUTS, DIMS, SweepSettings(max_cases=limit))
        n_kept = max(limit, n_needed)
        assert part.cases == whole.cases[:n_kept]
        assert part.dropped[0] == f"{whole.cases[n_kept].name}: above max_cases = {limit}"


def test_many_inputs_leave_room_for_the_other_cases() -> None:
    """A decoder of 12 layers has 52 inputs, and each needs a case in which it alone differs."""
    inputs = [tensor(f"past_{i}", "float32[batch, 2]") for i in range(52)]
    plan = plan_cases(inputs, {"batch": dim("batch", "1..8")}, SweepSettings(max_cases=12))
    names = [case.name for case in plan.cases]
    assert len(names) == 12 + 52 - 8
    assert all(f"only past_{i} differs" in names for i in range(52))


@pytest.mark.parametrize("n_inputs", [2, 8, 12, 52])
@pytest.mark.parametrize("limit", [1, 2, 12, 40])
def test_the_users_cases_crowd_out_none_that_a_verdict_needs(n_inputs: int, limit: int) -> None:
    inputs, dims = [tensor(f"x{i}", "float32[batch, 2]") for i in range(n_inputs)], DIGITS_DIMS
    feeds = {spec.name: np.zeros((2, 2), np.float32) for spec in inputs}
    given = [typical_case(f"own {i}", feeds, inputs, dims) for i in range(50)]
    plan = plan_cases(inputs, dims, SweepSettings(max_cases=limit), given)
    needed = {"random 1", "random 2", "random 3", *(f"only {spec.name} differs" for spec in inputs)}
    assert needed <= set(names_of(plan))
    n_own = sum(case.kind == "typical" for case in plan.cases)
    assert n_own >= (limit + 1) // 2
    # what the budget of a proof is shared by (build/proof.py)
    assert len(plan.cases) <= max(limit, (limit + 1) // 2 + 3) + n_inputs


def test_given_cases_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"input 'x' has batch = 65, the model takes 1\.\.64"):
        typical_case("large", own_case("x", 65), DIGITS, DIGITS_DIMS)
    twice = [typical_case("seven", own_case("x"), DIGITS, DIGITS_DIMS)] * 2
    with pytest.raises(UsageError, match="two of the given cases are called 'seven'"):
        plan_cases(DIGITS, DIGITS_DIMS, SweepSettings(), twice)
