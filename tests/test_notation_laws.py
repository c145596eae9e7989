"""Laws of the notations over generated text: any text is read, or refused with a `UsageError`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from anyport.axes import parse_axis
from anyport.errors import UsageError
from anyport.tensors import dim, tensor

if TYPE_CHECKING:
    from collections.abc import Callable

hypothesis = pytest.importorskip(
    "hypothesis", reason="hypothesis is not installed: pip install 'anyport[dev]'"
)
st = hypothesis.strategies

# text that looks like a notation goes deeper than text of any kind
_PIECES = [
    "1",
    "64",
    "00",
    "a",
    "batch",
    "é",
    "..",
    ":",
    "+",
    "-",
    "*",
    "//",
    "(",
    ")",
    " ",
    ",",
    "[",
    "]",
    "\n",
]
_TEXT = st.text() | st.lists(st.sampled_from([*_PIECES, "float32", "int64", "1e9", "."])).map("".join)
_READERS: list[Callable[[str], Any]] = [
    lambda text: parse_axis(text, "x"),
    lambda text: dim("d", text),
    lambda text: tensor("x", text),
    lambda text: tensor("x", f"float32[{text}]"),
    lambda text: tensor(text, "float32[1]"),
]


@pytest.mark.parametrize("read", _READERS, ids=["axis", "dim", "tensor", "axes", "name"])
def test_any_text_is_read_or_refused(read: Callable[[str], Any]) -> None:
    @hypothesis.given(_TEXT)  # type: ignore[untyped-decorator]
    @hypothesis.settings(derandomize=True, database=None, max_examples=300, deadline=None)  # type: ignore[untyped-decorator]
    def law(text: str) -> None:
        try:
            first = read(text)
        except UsageError:
            return
        assert read(text) == first

    law()


@pytest.mark.parametrize("read", _READERS[2:4], ids=["tensor", "axes"])
def test_what_is_read_is_written_the_same(read: Callable[[str], Any]) -> None:
    @hypothesis.given(_TEXT)  # type: ignore[untyped-decorator]
    @hypothesis.settings(derandomize=True, database=None, max_examples=300, deadline=None)  # type: ignore[untyped-decorator]
    def law(text: str) -> None:
        try:
            spec = read(text)
        except UsageError:
            return
        assert tensor("x", str(spec)) == spec

    law()
