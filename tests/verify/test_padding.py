"""Padding is found in the masks."""

from __future__ import annotations

import numpy as np
import pytest

from anyport.tensors import tensor
from anyport.verify.padding import counted_positions, is_batched, spread

MASK = np.int64([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
STATES = tensor("states", "float32[batch, sequence, 8]")
POOLED = tensor("pooled", "float32[batch, 8]")


@pytest.mark.parametrize(
    ("output", "mask", "array", "counted"),
    [
        (STATES, ("attention_mask", "int64[batch, sequence] 0..1"), MASK, MASK == 1),
        (STATES, ("src_key_padding_mask", "bool[batch, sequence]"), MASK == 0, MASK == 1),
        (POOLED, ("attention_mask", "int64[batch, sequence] 0..1"), MASK, [True, True, False]),
        (STATES, ("token_type_ids", "int64[batch, sequence] 0..1"), MASK, None),
        (STATES, ("attention_mask", "float32[batch, sequence]"), MASK, None),
        (STATES, ("pixel_mask", "int64[pictures, height] 0..1"), MASK, None),
        (tensor("n", "int64[]"), ("attention_mask", "int64[batch, sequence] 0..1"), MASK, None),
    ],
)
def test_what_counts(output: object, mask: tuple[str, str], array: np.ndarray, counted: object) -> None:
    found = counted_positions(output, [tensor(*mask)], {mask[0]: array})  # type: ignore[arg-type]
    assert (found is None) == (counted is None)
    if counted is not None:
        np.testing.assert_array_equal(found, counted)


def test_two_masks_must_both_agree() -> None:
    masks = [tensor("text_mask", "int64[batch, sequence] 0..1"), tensor("row_mask", "bool[batch]")]
    feeds = {"text_mask": MASK, "row_mask": np.array([True, False, True])}
    found = counted_positions(STATES, masks, feeds)
    assert found is not None
    assert found.tolist() == [[True, True, False], [False] * 3, [False] * 3]


def test_batches() -> None:
    inputs = [tensor("x", "float32[8, 3]"), tensor("y", "float32[batch, 2]")]
    answers = {"float32[8, 5]": True, "float32[batch]": True, "float32[boxes, 4]": False, "float32[]": False}
    assert {text: is_batched(tensor("z", text), inputs) for text in answers} == answers
    assert spread(np.ones((2, 3), bool), 4).shape == (2, 3, 1, 1)
