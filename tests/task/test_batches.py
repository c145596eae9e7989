"""Batches: every input once, in order, in sizes that the graph takes."""

from __future__ import annotations

import pytest

from anyport.axes import parse_axis
from anyport.task.batches import Batch, plan_batches
from anyport.tensors import Dim, dim

NAMED, FIXED = parse_axis("batch", "x"), parse_axis("4", "x")


@pytest.mark.parametrize("n_inputs", [0, 1, 3, 4, 5, 16, 17, 100])
@pytest.mark.parametrize(
    "sizes",
    [
        None,
        dim("b", "1..64"),
        dim("b", "1..3"),
        dim("b", "2..8:2"),
        dim("b", "20..30"),
        dim("b", "32..64:32"),
    ],
)
def test_every_input_is_in_one_batch_of_an_allowed_size(n_inputs: int, sizes: Dim | None) -> None:
    batches = plan_batches(n_inputs, NAMED, sizes)
    assert [i for batch in batches for i in range(batch.start, batch.stop)] == list(range(n_inputs))
    for batch in batches:
        assert batch.stop > batch.start
        assert sizes is None or sizes.holds(batch.stop - batch.start + batch.n_filling)


@pytest.mark.parametrize("n_inputs", [1, 4, 5, 9])
def test_a_fixed_batch_is_filled(n_inputs: int) -> None:
    batches = plan_batches(n_inputs, FIXED, None)
    assert {batch.stop - batch.start + batch.n_filling for batch in batches} == {4}
    assert sum(batch.stop - batch.start for batch in batches) == n_inputs


def test_nothing_is_filled_without_need() -> None:
    assert plan_batches(5, NAMED, dim("b", "1..64")) == (Batch(0, 5),)
    assert plan_batches(5, NAMED, dim("b", "2..4:2")) == (Batch(0, 4), Batch(4, 5, 1))
