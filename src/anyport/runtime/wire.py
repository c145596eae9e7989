"""Protobuf's wire format, read in place: fields of a tag and a number, or of a tag, a length and bytes.

https://protobuf.dev/programming-guides/encoding. Nothing is copied and nothing is decoded that is not asked
for, so that a file of 2 GB of weights costs microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

Span = tuple[int, int]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types
_MAX_VARINT_BYTES: Final = 10
_INT64: Final = 1 << 63


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: As in the .proto file.
        wire_type: How it is written.
        value: The number of a varint, as unsigned; 0 of the other types.
        span: Where the bytes of the others lie; empty for a varint.
    """

    number: int
    wire_type: int
    value: int
    span: Span


def fields(content: mmap.mmap, span: Span) -> Iterator[Field]:
    """Yield the fields of a message, in the order in which they are written.

    Raises:
        ValueError: It is no message, or it is cut off.
    """
    at, end = span
    while at < end:
        tag, at = _varint(content, at, end)
        value, length, wire_type = 0, 0, tag & 7
        if wire_type == VARINT:
            value, at = _varint(content, at, end)
        elif wire_type == LENGTH:
            length, at = _varint(content, at, end)
        elif wire_type in {FIXED64, FIXED32}:
            length = 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError("it is no protobuf message")
        if at + length > end:
            raise ValueError("it is cut off")
        yield Field(tag >> 3, wire_type, value, (at, at + length))
        at += length


def varints(content: mmap.mmap, field: Field) -> list[int]:
    """Return the numbers of a repeated field: one, or several packed into bytes; signed as int64 is."""
    if field.wire_type == VARINT:
        return [signed(field.value)]
    found: list[int] = []
    at, end = field.span
    while at < end:
        value, at = _varint(content, at, end)
        found.append(signed(value))
    return found


def signed(value: int) -> int:
    """Return a varint as int64: a negative number is written as its two's complement.

    >>> signed(2**64 - 1), signed(7)
    (-1, 7)
    """
    return value - 2 * _INT64 if value >= _INT64 else value


def text(content: mmap.mmap, field: Field) -> str:
    """Return the words of a string field.

    Raises:
        ValueError: They are no UTF-8.
    """
    start, end = field.span
    return content[start:end].decode("utf-8")


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for place in range(at, min(at + _MAX_VARINT_BYTES, end)):
        byte = content[place]
        value |= (byte & 0x7F) << (7 * (place - at))
        if byte < 0x80:  # noqa: PLR2004 -- the upper bit says that another byte follows
            return value, place + 1
    raise ValueError("it is no protobuf message")
