"""What an .onnx file says beside its graph, read from the file's framing without a parser: weights, metadata.

An .onnx file is a protobuf message; `anyport.runtime.wire` reads tags and lengths alone, so that a file of
2 GB costs microseconds. `anyport.runtime.graphfile` reads the graph.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

from anyport.runtime.wire import LENGTH, fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anyport.runtime.wire import Span

# field numbers of onnx.proto
_MODEL_GRAPH: Final = 7
_MODEL_METADATA: Final = 14
_GRAPH_INITIALIZER: Final = 5
_TENSOR_EXTERNAL_DATA: Final = 13
_ENTRY_KEY: Final = 1
_ENTRY_VALUE: Final = 2


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
    for field in fields(content, span):
        if field.wire_type == LENGTH and field.number == number:
            yield field.span
