"""Cases: the random numbers are those of the specification, bit for bit, and every fill keeps its word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from anyport.cases import Case, Constant, Fill, Normal, Padding, Stored, Uniform, make_array, splitmix64
from anyport.errors import UsageError
from anyport.tensors import tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

_MASK = 2**64 - 1


def reference_words(seed: int) -> Iterator[int]:
    """SplitMix64 as Vigna's splitmix64.c has it, one word after the other, in whole numbers of any size."""
    state = seed & _MASK
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        word = state
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
        yield word ^ (word >> 31)


def first_words(seed: int, n: int) -> list[int]:
    words = reference_words(seed)
    return [next(words) for _ in range(n)]


def test_the_published_vector() -> None:
    # https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert first_words(1234567, 5) == published
    assert splitmix64(1234567, 5).tolist() == published


@pytest.mark.parametrize("seed", [0, 1, 42, 2**63, 2**64 - 1, 2**64 + 5, -1])
def test_words_are_those_of_the_reference(seed: int) -> None:
    words = splitmix64(seed, 100)
    assert words.dtype == np.uint64
    assert words.tolist() == first_words(seed, 100)


def test_no_words() -> None:
    assert splitmix64(0, 0).shape == (0,)


@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_uniform_floats_are_the_upper_53_bits(seed: int) -> None:
    expected = [-2.0 + (word >> 11) / 2**53 * 5.0 for word in first_words(seed, 12)]
    made = make_array(Uniform(seed, -2.0, 3.0), (3, 4), "float64")
    assert made.ravel().tolist() == expected


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0, 9, "int64"), (-7, 7, "int32"), (0, 255, "uint8"), (-128, 127, "int8")]
)
def test_uniform_integers_are_words_modulo_the_range(low: int, high: int, dtype: str) -> None:
    made = make_array(Uniform(3, low, high), (50, 40), dtype)
    assert made.dtype == dtype
    assert made.ravel().tolist() == [low + word % (high - low + 1) for word in first_words(3, 2000)]
    assert (made.min(), made.max()) == (low, high)


def test_normal_values_are_sums_of_four_uniforms() -> None:
    units = [(word >> 11) / 2**53 for word in first_words(11, 24)]
    sums = [((units[i] + units[i + 1]) + units[i + 2]) + units[i + 3] for i in range(0, 24, 4)]
    made = make_array(Normal(11, scale=0.5), (2, 3), "float64")
    assert made.ravel().tolist() == [(total - 2.0) * (0.5 * 1.7320508075688772) for total in sums]


def test_normal_values_are_nearly_normal() -> None:
    made = make_array(Normal(5, scale=2.0), (100_000,), "float64")
    assert abs(made.mean()) < 0.02
    assert abs(made.std() - 2.0) < 0.02
    assert np.abs(made).max() <= 3.5 * 2.0


@pytest.mark.parametrize("shape", [(4, 7), (1, 7), (3, 2, 1, 7), (7,), (2, 1)])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("empty_row", [False, True])
def test_padding_is_ones_and_then_zeros(shape: tuple[int, ...], *, left: bool, empty_row: bool) -> None:
    mask = make_array(Padding(9, left=left, empty_row=empty_row), shape, "int64")
    assert mask.shape == shape
    assert set(np.unique(mask)) <= {0, 1}
    steps = np.diff(mask, axis=-1)
    assert (steps >= 0).all() if left else (steps <= 0).all()
    rows = mask.reshape(shape[0], -1, shape[-1]) if len(shape) > 1 else mask[None, None]
    assert (rows == rows[:, :1]).all(), "every line of a row is masked alike"
    n_ones = rows[:, 0].sum(axis=-1)
    assert (n_ones[:-1] >= 1).all()
    assert (n_ones[-1] == 0) == empty_row


@pytest.mark.parametrize("shape", [(0,), (2, 0), (2, 3, 0)])
@pytest.mark.parametrize(
    "fill", [Constant(1), Normal(1), Uniform(1, 0, 9), Padding(1), Padding(1, left=True)]
)
def test_an_axis_may_be_empty(shape: tuple[int, ...], fill: Fill) -> None:
    made = make_array(fill, shape, "int64")
    assert (made.shape, str(made.dtype)) == (shape, "int64")


def test_rows_of_a_mask_differ() -> None:
    mask = make_array(Padding(0), (8, 50), "bool")
    assert len(set(mask.sum(axis=1).tolist())) > 4


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint8", "bool"])
def test_a_constant_has_the_type_asked_for(dtype: str) -> None:
    made = make_array(Constant(1), (2, 3), dtype)
    assert made.dtype == dtype
    assert (made == 1).all()


def test_golden_values() -> None:
    """The bits of a proof may never change: these are in files that users have."""
    assert make_array(Normal(1), (4,), "float32").tobytes().hex() == GOLDEN_NORMAL
    assert make_array(Uniform(1, -1, 1), (4,), "float32").tobytes().hex() == GOLDEN_UNIFORM
    assert make_array(Uniform(1, 0, 30521), (4,), "int64").tolist() == GOLDEN_IDS
    assert make_array(Padding(1), (3, 6), "int64").sum(axis=1).tolist() == GOLDEN_LENGTHS


GOLDEN_NORMAL = "8755a13f6db3863ff5f81d3edaac36bf"
GOLDEN_UNIFORM = "6f51083e37aefb3e4627713f97e7e3bd"
GOLDEN_IDS = [8837, 20275, 22500, 22655]
GOLDEN_LENGTHS = [6, 2, 1]


def test_a_stored_array_is_not_made() -> None:
    with pytest.raises(UsageError, match=r"^the array 'photo' is stored, not made$"):
        make_array(Stored("photo"), (1,), "float32")


def test_a_case_makes_its_arrays() -> None:
    inputs = (tensor("x", "float32[batch, 3]"), tensor("ids", "int64[batch] 0..9"))
    photo = np.ones((2, 3), np.float32)
    case = Case(
        name="batch=2",
        kind="typical",
        sizes={"batch": 2},
        fills={"x": Stored("photo"), "ids": Uniform(0, 0, 9)},
        stored={"photo": photo},
    )
    arrays = case.arrays(inputs)
    assert arrays["x"] is photo
    assert arrays["ids"].shape == (2,)
    assert case.size_bytes(inputs) == sum(array.nbytes for array in arrays.values()) == 40


@pytest.mark.parametrize(
    "fill", [Constant(0.5), Normal(1, 2.0), Uniform(3, 0, 9), Padding(4, left=True), Stored("k")]
)
def test_fills_survive_a_file(fill: Fill) -> None:
    assert msgspec.json.decode(msgspec.json.encode(fill), type=Fill) == fill


def test_an_unknown_key_of_a_fill_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `sede`"):
        msgspec.json.decode(b'{"type": "normal", "seed": 1, "sede": 2}', type=Fill)
