"""Axes: what is read, what is refused, and the sizes that come out."""

from __future__ import annotations

import itertools

import pytest

from anyport.axes import parse_axis
from anyport.errors import UsageError


@pytest.mark.parametrize(
    ("text", "sizes", "size"),
    [
        ("3", {}, 3),
        ("0", {}, 0),
        ("batch", {"batch": 5}, 5),
        ("height//8", {"height": 64}, 8),
        ("height//8", {"height": 63}, 7),
        ("2*width", {"width": 7}, 14),
        ("a+b", {"a": 2, "b": 3}, 5),
        ("a - 1", {"a": 4}, 3),
        ("(a+1)//2*b", {"a": 4, "b": 10}, 20),
        ("a-b-c", {"a": 9, "b": 3, "c": 2}, 4),
    ],
)
def test_sizes(text: str, sizes: dict[str, int], size: int) -> None:
    axis = parse_axis(text, "x")
    assert axis.size(sizes) == size
    assert axis.names == set(sizes)


@pytest.mark.parametrize(
    ("text", "name", "is_fixed"),
    [("3", None, True), ("batch", "batch", False), ("batch//2", None, False), ("_n1", "_n1", False)],
)
def test_a_fixed_a_named_and_a_computed_axis(text: str, name: str | None, *, is_fixed: bool) -> None:
    axis = parse_axis(text, "x")
    assert (axis.name, axis.is_fixed, str(axis)) == (name, is_fixed, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "1.5",
        "2**3",
        "2*3",
        "a/2",
        "a%2",
        "a<<1",
        "-a",
        "a.b",
        "a[0]",
        "a()",
        "__import__('os')",
        "'a'",
        "None",
        "True",
        "class",
        "a if b else c",
        "a, b",
        "(a := 1)",
        "lambda: a",
        "a\x00",
        "a" * 81,
        "1_000",
        "0x10",
        "٣",
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_axis(text, "pixel_values")
    assert caught.value.what == f"axis '{text}' of tensor 'pixel_values' is not understood"
    assert caught.value.do == "write a number, a name, or an expression such as height//8 or 2*width"


def test_a_size_that_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match=r"^axis 'hight' has no size \(did you mean 'height'\?\)$"):
        parse_axis("hight//8", "y").size({"height": 64})


def test_nothing_is_divided_by_zero() -> None:
    with pytest.raises(UsageError, match=r"^an axis is divided by 0$"):
        parse_axis("a//b", "y").size({"a": 1, "b": 0})


OPERATORS = ("+", "-", "*", "//")


@pytest.mark.parametrize(("first", "second"), list(itertools.product(OPERATORS, repeat=2)))
def test_sizes_are_those_of_python(first: str, second: str) -> None:
    text = f"a {first} b {second} c"
    for a, b, c in itertools.product((1, 2, 7), repeat=3):
        sizes = {"a": a, "b": b, "c": c}
        # S307: the test's own text, the law is "as Python counts"; none of these sizes is 0, quotients may be
        expected = None if "//" in text and _divides_by_zero(text, sizes) else eval(text, {}, sizes)  # noqa: S307
        if expected is None or expected < 0:
            with pytest.raises(UsageError, match=r"a size cannot be below 0$|^an axis is divided by 0$"):
                parse_axis(text, "y").size(sizes)
        else:
            assert parse_axis(text, "y").size(sizes) == expected


def _divides_by_zero(text: str, sizes: dict[str, int]) -> bool:
    try:
        eval(text, {}, sizes)  # noqa: S307
    except ZeroDivisionError:
        return True
    return False
