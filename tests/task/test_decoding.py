"""A decoder that is fed step by step."""

from __future__ import annotations

import numpy as np
import pytest

from anyport.task.decoding import Seen
from tests.task import counting

TOKENS = np.array([[5, 6, 7], [8, 9, 10]])


def test_step_by_step_is_the_same_as_at_once() -> None:
    decoder = counting.CountingDecoder()
    at_once = counting.state(decoder, 2).read(TOKENS)
    state = counting.state(decoder, 2)
    for column in TOKENS.T:
        last = state.read(column[:, None])
    np.testing.assert_allclose(last, at_once, atol=1e-6)
    assert decoder.shapes == [(2, 3), (2, 1), (2, 1), (2, 1)]


def test_filling_on_the_left_changes_nothing() -> None:
    decoder = counting.CountingDecoder()
    alone = counting.state(decoder, 1).read(TOKENS[:1])
    filled = np.concatenate([np.zeros((2, 2), np.int64), TOKENS], axis=1)
    state = counting.state(decoder, 2)
    found = state.read(filled, np.array([[0, 0, 1, 1, 1]] * 2))
    np.testing.assert_allclose(found[:1], alone, atol=1e-6)
    next_alone = counting.state(decoder, 1)
    next_alone.read(TOKENS[:1])
    np.testing.assert_allclose(
        state.read(np.array([[4], [4]]))[:1], next_alone.read(np.array([[4]])), atol=1e-6
    )


def test_rows_go_on_in_any_order_and_twice() -> None:
    decoder = counting.CountingDecoder()
    state, plain = counting.state(decoder, 2), counting.state(decoder, 2)
    state.read(TOKENS)
    plain.read(TOKENS)
    expected = plain.read(np.array([[4], [4]]))
    state.keep(np.array([1, 0, 1]))
    assert state.n_rows == 3
    found = state.read(np.full((3, 1), 4))
    np.testing.assert_allclose(found, expected[[1, 0, 1]], atol=1e-6)


def test_a_row_that_is_left_out_is_no_longer_computed() -> None:
    decoder = counting.CountingDecoder()
    state = counting.state(decoder, 3)
    state.read(np.ones((3, 2), np.int64))
    state.keep(np.array([2]))
    state.read(np.ones((1, 1), np.int64))
    assert decoder.shapes == [(3, 2), (1, 1)]


def test_what_is_seen_is_copied_only_if_a_row_sees_something_else() -> None:
    state = counting.state(counting.CountingDecoder(), 2)
    state.keep(np.array([0, 0, 1, 1]))
    before = state._seen
    state.keep(np.array([1, 1, 3, 2]))  # beams of the same two pictures
    assert state._seen is before
    state.keep(np.array([2, 3, 0, 1]))
    assert state._seen is not before


def test_rows_of_what_is_seen() -> None:
    seen = Seen({"cross_0_k": np.arange(3.0)[:, None]}, np.arange(3)[:, None])
    taken = seen.taken(np.array([2, 2, 0]))
    assert taken.keys["cross_0_k"][:, 0].tolist() == [2, 2, 0]
    assert taken.mask[:, 0].tolist() == [2, 2, 0]


def _keeps(rows_before: int, random: np.random.Generator) -> np.ndarray:
    """Draw rows as both searches do: some are left out, some come twice, at times in another order."""
    n = int(random.integers(1, rows_before + 2))
    rows = random.integers(0, rows_before, n)
    return rows if random.random() < 0.3 else np.unique(rows)


@pytest.mark.parametrize("seed", range(40))
def test_rows_see_their_own_picture_whatever_is_kept(seed: int) -> None:
    random = np.random.default_rng(seed)
    state = counting.state(counting.CountingDecoder(), 6)
    whole = state._seen.taken(np.arange(6))
    given = state._seen
    source = np.arange(6)
    for _ in range(6):
        rows = _keeps(state.n_rows, random)
        state.keep(rows)
        source = source[rows]
        np.testing.assert_array_equal(state._seen.keys["cross_0_k"], whole.keys["cross_0_k"][source])
        np.testing.assert_array_equal(state._seen.keys["cross_0_v"], whole.keys["cross_0_v"][source])
        assert state._seen.keys["cross_0_k"].flags.c_contiguous
    np.testing.assert_array_equal(given.keys["cross_0_k"], whole.keys["cross_0_k"])  # the caller's


def test_what_is_seen_is_copied_once_then_moved() -> None:
    state = counting.state(counting.CountingDecoder(), 5)
    given = state._seen.keys["cross_0_k"]
    state.keep(np.array([0, 1, 3, 4]))
    copied = state._seen.keys["cross_0_k"]
    assert not np.shares_memory(copied, given)
    state.keep(np.array([1, 2, 3]))
    state.keep(np.array([0, 2]))
    moved = state._seen.keys["cross_0_k"]
    assert np.shares_memory(moved, copied)
    np.testing.assert_array_equal(moved, given[[1, 4]])


def test_the_beams_of_pictures_that_go_on_are_moved_too() -> None:
    state = counting.state(counting.CountingDecoder(), 3)
    given = state._seen.keys["cross_0_k"]
    state.keep(np.repeat(np.arange(3), 2))
    copied = state._seen.keys["cross_0_k"]
    state.keep(np.array([1, 0, 5, 5]))  # the second picture is done
    assert np.shares_memory(state._seen.keys["cross_0_k"], copied)
    np.testing.assert_array_equal(state._seen.keys["cross_0_k"], given[[0, 0, 2, 2]])
