"""Tensors: the notation, the ranges of dimensions, and what is refused at run time."""

from __future__ import annotations

import random

import numpy as np
import pytest

from anyport.errors import InputError, UsageError
from anyport.tensors import DTYPES, Dim, check_feeds, dim, tensor


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1..64", Dim("d", 1, 64)),
        (" 64 .. 1024 : 32 ", Dim("d", 64, 1024, 32)),
        ("1..2:1", Dim("d", 1, 2)),
    ],
)
def test_a_dim_is_read(text: str, expected: Dim) -> None:
    assert dim("d", text) == expected
    assert dim("d", str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "64", "1...64", "1-64", "-1..4", "1..4:", "a..b", "1..64 # n", "1.5..2"]
)
def test_a_dim_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        dim("batch", text)
    assert caught.value.what == f"dim 'batch' = '{text}' is not understood"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0..0", "dim 'd' = 0..0 is not a range of sizes"),
        ("4..4", "dim 'd' = 4..4 is not a range of sizes"),
        ("8..4", "dim 'd' = 8..4 is not a range of sizes"),
        ("8..16:0", "dim 'd' = 8..16 is not a range of sizes"),
        ("8..20:8", "dim 'd' = 8..20:8: 8 and 20 must be multiples of 8"),
        ("4..16:8", "dim 'd' = 4..16:8: 4 and 16 must be multiples of 8"),
    ],
)
def test_a_dim_without_sizes_is_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        dim("d", text)
    assert caught.value.what == what


def test_a_dim_holds_exactly_its_sizes() -> None:
    height = dim("height", "64..128:32")
    held = [size for size in range(-5, 200) if height.holds(size)]
    assert held == [64, 96, 128]
    assert height.n_sizes == len(held)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("float32[batch,3,height,width]", "float32[batch, 3, height, width]"),
        ("float32[]", "float32[]"),
        ("  int64 [ batch , 7 ]  0..99 ", "int64[batch, 7] 0..99"),
        ("int64[n] -5..5", "int64[n] -5..5"),
        ("float32[n] -0.5..1.5e3", "float32[n] -0.5..1500"),
        ("float16[b, height//8, 2*width]", "float16[b, height//8, 2*width]"),
        ("bool[batch, sequence]", "bool[batch, sequence]"),
    ],
)
def test_a_tensor_is_read(text: str, canonical: str) -> None:
    spec = tensor("x", text)
    assert str(spec) == canonical
    assert tensor("x", canonical) == spec


def test_every_notation_survives_a_round_trip() -> None:
    draw = random.Random(0)
    pieces = ["1", "3", "224", "batch", "sequence", "height//8", "2*width", "(a+b)//2", "n-1"]
    for _ in range(500):
        axes = ", ".join(draw.choices(pieces, k=draw.randrange(5)))
        text = f"{draw.choice(DTYPES)}[{axes}]"
        if draw.random() < 0.5:
            low = draw.uniform(-1e6, 1e6)
            text += f" {low!r}..{low + draw.uniform(0.1, 1e9)!r}"
        spec = tensor("x", text)
        assert tensor("x", str(spec)) == spec


@pytest.mark.parametrize("text", ["", "float32", "float32[", "[3]", "float32[3] 0..", "f[3]]"])
def test_a_tensor_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        tensor("x", text)
    assert caught.value.what == f"tensor 'x' = '{text}' is not understood"


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("x", "float33[3]", "tensor 'x' has the type 'float33' (did you mean 'float32'?)"),
        ("x", "int64[n] 5..5", "tensor 'x': 5..5 is no range of values: it is empty or infinite"),
        ("x", "int64[n] 6..5", "tensor 'x': 6..5 is no range of values: it is empty or infinite"),
        ("x", "int64[n] 1e..5", "tensor 'x': 1e..5 is no range of values"),
        ("x", "int64[n] 0..1..2", "tensor 'x': 0..1..2 is no range of values"),
        ("", "float32[3]", "'' is no name for a tensor"),
        ("a b", "float32[3]", "'a b' is no name for a tensor"),
        ("../x", "float32[3]", "'../x' is no name for a tensor"),
        ("x", "float32[3, -1]", "axis '-1' of tensor 'x' is not understood"),
    ],
)
def test_what_is_wrong_with_a_tensor_is_said(name: str, text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        tensor(name, text)
    assert caught.value.what == what


@pytest.mark.parametrize(
    ("text", "is_float", "is_mask"),
    [
        ("float32[n]", True, False),
        ("float32[n] 0..1", True, False),
        ("bool[n]", False, True),
        ("int64[n] 0..1", False, True),
        ("int64[n]", False, False),
        ("int64[n] 0..2", False, False),
    ],
)
def test_floats_and_masks(text: str, *, is_float: bool, is_mask: bool) -> None:
    spec = tensor("x", text)
    assert (spec.is_float, spec.is_mask) == (is_float, is_mask)


def test_axes_of_a_tensor() -> None:
    spec = tensor("x", "float32[batch, 3, height//8]")
    assert spec.dynamic_axes() == {0: "batch"}
    assert spec.shape({"batch": 2, "height": 64}) == (2, 3, 8)


PICTURE = tensor("picture", "float32[batch, 3, height]")
IDS = tensor("ids", "int64[batch, sequence] 0..99")
DIMS = {
    "batch": dim("batch", "1..4"),
    "height": dim("height", "8..32:8"),
    "sequence": dim("sequence", "1..16"),
}


def zeros(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.zeros(shape, dtype)


def test_feeds_that_fit_tell_the_sizes() -> None:
    feeds = {"picture": zeros(2, 3, 16), "ids": zeros(2, 5, dtype="int64")}
    assert check_feeds(feeds, (PICTURE, IDS), DIMS) == {"batch": 2, "height": 16, "sequence": 5}


@pytest.mark.parametrize(
    ("feeds", "what"),
    [
        ({}, "input 'picture' is missing: float32[batch, 3, height]"),
        ({"pictur": zeros(1, 3, 8)}, "the model has no input 'pictur' (did you mean 'picture'?)"),
        ({"picture": [[1.0]]}, "input 'picture' is a list, not a numpy array"),
        (
            {"picture": zeros(1, 3, 8, dtype="float64")},
            "input 'picture' is float64, the model takes float32[batch, 3, height]",
        ),
        (
            {"picture": zeros(1, 3, 8).astype(">f4")},
            "input 'picture' is >f4, the model takes float32[batch, 3, height]",
        ),
        (
            {"picture": zeros(3, 8)},
            "input 'picture' has 2 axes (3, 8), the model takes float32[batch, 3, height]",
        ),
        (
            {"picture": zeros(1, 1, 8)},
            "input 'picture' has size 1 where the model takes 3: float32[batch, 3, height]",
        ),
        ({"picture": zeros(5, 3, 8)}, "input 'picture' has batch = 5, the model takes 1..4"),
        ({"picture": zeros(0, 3, 8)}, "input 'picture' has batch = 0, the model takes 1..4"),
        ({"picture": zeros(1, 3, 12)}, "input 'picture' has height = 12, the model takes 8..32:8"),
        (
            {"picture": zeros(1, 3, 8), "ids": zeros(2, 5, dtype="int64")},
            "input 'ids' has batch = 2, another input has batch = 1",
        ),
    ],
)
def test_feeds_that_do_not_fit_are_refused(feeds: dict[str, np.ndarray], what: str) -> None:
    specs = (PICTURE, IDS) if "ids" in feeds else (PICTURE,)
    with pytest.raises(InputError) as caught:
        check_feeds(feeds, specs, DIMS)
    assert caught.value.what == what


CACHE = (tensor("mask", "int64[past+n]"), tensor("ids", "int64[n]"), tensor("keys", "float32[past, 2]"))
CACHE_DIMS = {"past": dim("past", "0..8"), "n": dim("n", "1..8")}


def cache_feeds(mask: int, n: int, past: int) -> dict[str, np.ndarray]:
    return {"mask": zeros(mask, dtype="int64"), "ids": zeros(n, dtype="int64"), "keys": zeros(past, 2)}


@pytest.mark.parametrize(("mask", "n", "past"), [(1, 1, 0), (5, 2, 3), (16, 8, 8)])
def test_an_input_axis_may_be_computed_and_a_dim_may_be_empty(mask: int, n: int, past: int) -> None:
    assert check_feeds(cache_feeds(mask, n, past), CACHE, CACHE_DIMS) == {"n": n, "past": past}


def test_a_computed_input_axis_of_another_size_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        check_feeds(cache_feeds(4, 2, 3), CACHE, CACHE_DIMS)
    assert str(caught.value) == (
        "input 'mask' has past+n = 4, the other inputs have n = 2, past = 3\n"
        "  do:    give it the size 5 there"
    )


def test_an_axis_without_a_dim_takes_any_size() -> None:
    assert check_feeds({"picture": zeros(9, 3, 7)}, (PICTURE,), {}) == {"batch": 9, "height": 7}
