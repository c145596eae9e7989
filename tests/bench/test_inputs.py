"""Which sizes and values a measurement uses."""

from __future__ import annotations

import numpy as np
import pytest

from anyport.bench.inputs import axes_of, batch_axis, bench_case, check_asked, choose_sizes, default_batches
from anyport.errors import UsageError
from anyport.tensors import Signature, check_feeds, dim, tensor


def signature(*notations: str, **dims: str) -> Signature:
    inputs = tuple(tensor(f"x{i}", text) for i, text in enumerate(notations))
    return Signature(inputs, (), {name: dim(name, sizes) for name, sizes in dims.items()})


TEXT = signature(
    "int64[batch, sequence] 0..99", "int64[batch, sequence] 0..1", batch="1..64", sequence="8..512:8"
)


@pytest.mark.parametrize(
    ("notations", "expected"),
    [
        (("float32[batch, 3]",), "batch"),
        (("float32[batch, 3]", "int64[batch] 0..9"), "batch"),
        (("float32[batch, 3]", "float32[other]"), None),
        (("float32[1, 3, height, width]",), None),
        (("float32[n, n]",), None),
        (("float32[batch, 3]", "float32[]"), "batch"),
        (("float32[]",), None),
    ],
)
def test_the_batch_is_the_first_axis_of_every_input(notations: tuple[str, ...], expected: str | None) -> None:
    assert batch_axis(signature(*notations).inputs) == expected


def test_latency_is_for_one_and_other_axes_have_their_middle() -> None:
    assert axes_of(TEXT.inputs) == ["batch", "sequence"]
    assert choose_sizes(TEXT, {}) == {"batch": 1, "sequence": 264}
    assert choose_sizes(TEXT, {"batch": 4, "sequence": 16}) == {"batch": 4, "sequence": 16}
    assert choose_sizes(signature("float32[1, 2]"), {}) == {}


def test_a_plain_file_without_ranges_takes_a_batch_of_one_and_asks_for_the_rest() -> None:
    plain = signature("int64[batch, sequence] 0..9")
    assert choose_sizes(plain, {"sequence": 7}) == {"batch": 1, "sequence": 7}
    with pytest.raises(UsageError) as caught:
        choose_sizes(plain, {})
    assert str(caught.value) == (
        "axis 'sequence' has no range of sizes, and no size was asked for\n  do:    --size sequence=128"
    )


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"sequence": 12}, "--size sequence=12: the model takes 8..512:8"),
        ({"batch": 65}, "--size batch=65: the model takes 1..64"),
        ({"batch": 0}, "--size batch=0: the least is 1"),
    ],
)
def test_sizes_that_the_model_does_not_take_are_refused(asked: dict[str, int], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_sizes(TEXT, asked)
    assert str(caught.value) == text


def test_a_size_of_no_axis_is_refused() -> None:
    check_asked({"batch": 2}, [TEXT, signature("float32[1]")])
    with pytest.raises(UsageError) as caught:
        check_asked({"sequenz": 2}, [TEXT])
    assert str(caught.value) == "--size 'sequenz' is no dynamic axis of any input (did you mean 'sequence'?)"


def test_batches_are_powers_of_two_that_the_model_takes() -> None:
    assert default_batches("batch", TEXT.dims) == (1, 2, 4, 8, 16, 32)
    assert default_batches("batch", {}) == (1, 2, 4, 8, 16, 32)
    assert default_batches("batch", {"batch": dim("batch", "3..9:3")}) == (3,)
    assert default_batches("batch", {"batch": dim("batch", "4..12:4")}) == (4, 8)


def test_the_inputs_fit_and_are_the_same_for_a_seed() -> None:
    sizes = {"batch": 3, "sequence": 16}
    arrays = bench_case(TEXT, sizes, seed=1).arrays(TEXT.inputs)
    assert check_feeds(arrays, TEXT.inputs, TEXT.dims) == sizes
    again = bench_case(TEXT, sizes, seed=1).arrays(TEXT.inputs)
    other = bench_case(TEXT, sizes, seed=2).arrays(TEXT.inputs)
    assert np.array_equal(arrays["x0"], again["x0"])
    assert not np.array_equal(arrays["x0"], other["x0"])
    assert bench_case(TEXT, sizes).name == "batch=3, sequence=16"
    assert bench_case(signature("float32[1, 2]"), {}).name == "fixed sizes"


def test_whole_numbers_without_a_range_are_refused() -> None:
    with pytest.raises(UsageError, match=r"input 'x0' is int64\[batch\]: nothing says which whole numbers"):
        bench_case(signature("int64[batch]"), {"batch": 1})
