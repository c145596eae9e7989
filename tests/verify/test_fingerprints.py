"""Finding the same numbers again."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from anyport.verify.fingerprints import fingerprint, same_layout
from tests.verify.fakes import f32, weight

DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int64", "bool")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4), (2, 3, 5)])
def test_order_is_seen_and_can_be_ignored(dtype: str, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) * 3 % 7).astype(dtype)
    shuffled = array.reshape(-1)[::-1].reshape(shape)
    one, other = fingerprint(array), fingerprint(shuffled)
    assert one.same_elements(other)
    assert one.same_bits(other) == np.array_equal(array, shuffled)
    assert one == fingerprint(array.copy())


def test_one_changed_bit_is_seen() -> None:
    array = weight(5, 40, 30)
    for index in ((0, 0), (39, 29), (20, 7)):
        changed = array.copy()
        changed.view(np.uint32)[index] ^= 1
        assert not fingerprint(array).same_elements(fingerprint(changed))


@pytest.mark.parametrize(
    ("one", "two"),
    [([0.0], [-0.0]), ([1.0, 1.0, 2.0], [1.0, 2.0, 2.0]), ([1.0], [1.0, 1.0]), ([3.0, 1.0], [2.0, 2.0])],
)
def test_multisets_that_are_not_the_same(one: list[float], two: list[float]) -> None:
    assert not fingerprint(f32(one)).same_elements(fingerprint(f32(two)))


def test_types_with_the_same_bits_differ() -> None:
    array = weight(5, 4)
    assert not fingerprint(array).same_elements(fingerprint(array.view(np.int32)))


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    array = weight(5, 1000)
    whole = fingerprint(array)
    monkeypatch.setattr("anyport.verify.fingerprints._CHUNK", 7)
    assert fingerprint(array) == whole


def test_constants_and_largest() -> None:
    assert fingerprint(np.zeros(5, np.float32)).is_constant
    assert not fingerprint(f32([0, -3])).is_constant
    assert fingerprint(f32([0, -3])).largest == 3
    assert fingerprint(f32([0, np.nan])).largest == np.inf


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_every_order_of_axes_is_found_both_ways(order: tuple[int, ...]) -> None:
    array = weight(6, 2, 3, 5)
    moved = np.ascontiguousarray(array.transpose(order))
    expected = "bit-equal" if order == (0, 1, 2) else "transposed"
    assert same_layout(array, moved) == expected
    assert same_layout(moved, array) == expected
    assert same_layout(array, moved.reshape(-1, 5)) == ("reshaped" if order == (0, 1, 2) else "transposed")


def test_split_and_permuted_heads_are_found() -> None:
    matrix = weight(7, 12, 8)  # [heads * width, model]
    heads = np.ascontiguousarray(matrix.reshape(3, 4, 8).transpose(2, 0, 1))
    assert same_layout(matrix, heads) == "transposed"
    assert same_layout(weight(7, 4, 3, 1, 1), weight(7, 4, 3, 1, 1).reshape(4, 3).T.copy()) == "transposed"


def test_other_values_other_types_and_shuffles_are_not_found() -> None:
    array = weight(8, 6, 4)
    assert same_layout(array, array + 1) is None
    assert same_layout(array, array.astype(np.float64)) is None
    assert same_layout(array, array[:5]) is None
    assert same_layout(array, array[::-1].copy()) is None
    late = array.reshape(-1).copy()
    late[[-1, -2]] = late[[-2, -1]]
    assert same_layout(array, late.reshape(6, 4)) is None
