from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import pytest

from anyport.runtime.wire import FIXED32, FIXED64, LENGTH, VARINT, Field, fields, signed, text, varints

if TYPE_CHECKING:
    from pathlib import Path


def mapped(path: Path, content: bytes) -> mmap.mmap:
    path.write_bytes(content)
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def read(path: Path, content: bytes) -> list[Field]:
    with mapped(path, content) as opened:
        return list(fields(opened, (0, len(content))))


def test_every_kind_of_field_is_read_in_order(tmp_path: Path) -> None:
    content = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x1d\x00\x00\x80\x3f" + b"\x21" + bytes(8)
    assert read(tmp_path / "m", content) == [
        Field(1, VARINT, 150, (3, 3)),
        Field(2, LENGTH, 0, (5, 7)),
        Field(3, FIXED32, 0, (8, 12)),
        Field(4, FIXED64, 0, (13, 21)),
    ]


def test_words_and_numbers(tmp_path: Path) -> None:
    content = b"\x12\x02hi" + b"\x1a\x03\x01\xac\x02" + b"\x08\x07"
    with mapped(tmp_path / "m", content) as opened:
        word, packed, single = fields(opened, (0, len(content)))
        assert text(opened, word) == "hi"
        assert varints(opened, packed) == [1, 300]
        assert varints(opened, single) == [7]


def test_negative_numbers_are_twos_complements() -> None:
    assert [signed(v) for v in (0, 2**63 - 1, 2**63, 2**64 - 1)] == [0, 2**63 - 1, -(2**63), -1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x12\x05hi", "it is cut off"),
        (b"\x08", "it is no protobuf message"),
        (b"\x08" + b"\xff" * 11, "it is no protobuf message"),
        (b"\x0b\x00", "it is no protobuf message"),  # a group, which no .onnx file has
        (b"\x1d\x00", "it is cut off"),
    ],
)
def test_what_is_no_message_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}$"):
        read(tmp_path / "m", content)
