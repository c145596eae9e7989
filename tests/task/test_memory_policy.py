"""How parts are opened under a memory limit: three ways, and which is chosen."""

from __future__ import annotations

import pytest

from anyport.errors import UsageError
from anyport.runtime.onnxfile import WeightSizes
from anyport.task.memory_policy import LEAST_COMPUTING_BYTES, How, MemoryPlan, plan_memory

MB = 10**6
SIZES = {
    "encoder": WeightSizes(1 * MB, plain_bytes=99 * MB),
    "transformer": WeightSizes(1 * MB, bfloat16_bytes=1000 * MB),
    "decoder": WeightSizes(1 * MB, kernels_bytes=49 * MB),
}


def ways(plan: MemoryPlan) -> dict[str, How]:
    return {name: part.how for name, part in plan.parts.items()}


@pytest.mark.parametrize(
    ("limit_mb", "encoder", "transformer", "decoder"),
    [
        (6302, "together", "together", "together"),  # 2 * (100 + 3001 + 50)
        (6301, "copied", "copied", "copied"),
        (6002, "copied", "copied", "copied"),  # 2 * 3001
        (6001, "copied", "mapped", "copied"),
        (200, "copied", "mapped", "copied"),
        (199, "mapped", "mapped", "copied"),
        (99, "mapped", "mapped", "mapped"),
        (67, "mapped", "mapped", "mapped"),
    ],
)
def test_the_fastest_way_that_leaves_half_for_computing(
    limit_mb: int, encoder: How, transformer: How, decoder: How
) -> None:
    plan = plan_memory(SIZES, limit_mb * MB)
    assert ways(plan) == {"encoder": encoder, "transformer": transformer, "decoder": decoder}
    assert plan.is_together == (encoder == "together")
    weights = {name: part.weights for name, part in plan.parts.items()}
    assert weights == {n: "mapped" if how == "mapped" else "copied" for n, how in ways(plan).items()}


def test_no_way_takes_more_than_half_for_what_it_copies_unless_it_cannot_be_less() -> None:
    for limit_mb in range(67, 7000, 37):
        plan = plan_memory(SIZES, limit_mb * MB)
        at_once = [part.copied_bytes for part in plan.parts.values() if part.how != "mapped"]
        copied_bytes = sum(at_once) if plan.is_together else max(at_once, default=0)
        assert 2 * copied_bytes <= limit_mb * MB
        least = [part.sizes.mapped_bytes for part in plan.parts.values() if part.how == "mapped"]
        assert max(least, default=0) + LEAST_COMPUTING_BYTES <= limit_mb * MB


def test_parts_that_are_not_needed_at_once_do_not_wait_open() -> None:
    plan = plan_memory(SIZES, 10**12, at_once=False)
    assert set(ways(plan).values()) == {"copied"}


@pytest.mark.parametrize("limit_bytes", [1, 1000, 50 * MB + LEAST_COMPUTING_BYTES - 1])
def test_what_cannot_begin_is_refused(limit_bytes: int) -> None:
    with pytest.raises(UsageError) as caught:
        plan_memory({"decoder": SIZES["decoder"]}, limit_bytes)
    assert caught.value.what.endswith(", the part 'decoder' needs 66.8 MB to begin with")
    assert caught.value.do == "give more; what it computes usually needs much more than that"


def test_a_part_that_needs_more_goes_on_in_the_way_that_leaves_the_most() -> None:
    plan = plan_memory(SIZES, 7000 * MB)
    first = plan.relieved("decoder")
    assert first is not None
    assert ways(first) == {"encoder": "copied", "transformer": "copied", "decoder": "mapped"}
    second = first.relieved("encoder")
    assert second is not None
    assert ways(second) == {"encoder": "mapped", "transformer": "copied", "decoder": "mapped"}
    assert second.relieved("decoder") is None


def test_it_is_said_in_words_and_for_programs() -> None:
    plan = plan_memory(SIZES, 400 * MB)
    assert plan.lines() == (
        "memory   encoder: opened when needed, weights copied (100.0 MB copied)",
        "memory   transformer: opened when needed, weights stay in the file (1.0 MB copied, 1.0 GB not)",
        "memory   decoder: opened when needed, weights copied (50.0 MB copied)",
    )
    assert plan.to_json() == {
        "limit_bytes": 400 * MB,
        "parts": {"encoder": "copied", "transformer": "mapped", "decoder": "copied"},
    }
    kernels = plan_memory({"decoder": SIZES["decoder"]}, 80 * MB)
    assert kernels.lines() == (
        "memory   decoder: opened when needed, weights stay in the file (50.0 MB copied)",
    )
