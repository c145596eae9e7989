"""What an .onnx file says beside its graph, read from the file's framing without a parser: weights, metadata.

An .onnx file is a protobuf message (https://protobuf.dev/programming-guides/encoding): fields of a tag and,
for those that matter here, a length. Only tags and lengths are read, so a file of 2 GB costs microseconds.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# field numbers of onnx.proto
_MODEL_GRAPH: Final = 7
_MODEL_METADATA: Final = 14
_GRAPH_INITIALIZER: Final = 5
_TENSOR_EXTERNAL_DATA: Final = 13
_ENTRY_KEY: Final = 1
_ENTRY_VALUE: Final = 2

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types

Span = tuple[int, int]


def weights_size(path: Path) -> int:
    """Return the size of the file and of the data that its initializers keep outside of it, in bytes.

    Raises:
        ValueError: The file is no protobuf message, or it names data that is not there.
    """
    size = path.stat().st_size
    if size == 0:
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return size + sum(_external_size(content, tensor, path.parent) for tensor in _initializers(content))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the ``metadata_props`` of a file.

    Raises:
        ValueError: The file is no protobuf message.
    """
    if path.stat().st_size == 0:
        return {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        entries = _fields(content, (0, len(content)), _MODEL_METADATA)
        return {_text(content, e, _ENTRY_KEY): _text(content, e, _ENTRY_VALUE) for e in entries}


def _initializers(content: mmap.mmap) -> Iterator[Span]:
    for graph in _fields(content, (0, len(content)), _MODEL_GRAPH):
        yield from _fields(content, graph, _GRAPH_INITIALIZER)


def _external_size(content: mmap.mmap, tensor: Span, folder: Path) -> int:
    entries = {
        _text(content, entry, _ENTRY_KEY): _text(content, entry, _ENTRY_VALUE)
        for entry in _fields(content, tensor, _TENSOR_EXTERNAL_DATA)
    }
    if "location" not in entries:
        return 0
    if "length" in entries:
        return int(entries["length"])
    whole = folder / entries["location"]
    if not whole.is_file():
        raise ValueError(f"it names the file '{entries['location']}', which is not there")
    return whole.stat().st_size


def _text(content: mmap.mmap, span: Span, number: int) -> str:
    start, end = next(_fields(content, span, number), (0, 0))
    return content[start:end].decode("utf-8")


def _fields(content: mmap.mmap, span: Span, number: int) -> Iterator[Span]:
    """Yield where the content of each field of this number lies."""
    at, end = span
    while at < end:
        tag, at = _varint(content, at, end)
        length = 0
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, at = _varint(content, at, end)
        elif wire_type == _LENGTH:
            length, at = _varint(content, at, end)
        elif wire_type in {_FIXED64, _FIXED32}:
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError("it is no protobuf message")
        if at + length > end:
            raise ValueError("it is cut off")
        if wire_type == _LENGTH and tag >> 3 == number:
            yield at, at + length
        at += length


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for place in range(at, min(at + 10, end)):
        byte = content[place]
        value |= (byte & 0x7F) << (7 * (place - at))
        if byte < 0x80:  # noqa: PLR2004 -- the upper bit says that another byte follows
            return value, place + 1
    raise ValueError("it is no protobuf message")
