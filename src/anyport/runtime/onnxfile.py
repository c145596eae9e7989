"""What an .onnx file says beside its graph, read from the file's framing without a parser: weights, metadata.

An .onnx file is a protobuf message; `anyport.runtime.wire` reads tags and lengths alone, so that a file of
2 GB costs microseconds. `anyport.runtime.graphfile` reads the graph.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyport.runtime.wire import LENGTH, VARINT, fields, text, varints

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anyport.runtime.wire import Span

# field numbers of onnx.proto
_MODEL_GRAPH: Final = 7
_MODEL_METADATA: Final = 14
_GRAPH_INITIALIZER: Final = 5
_TENSOR_DIMS: Final = 1
_TENSOR_DATA_TYPE: Final = 2
_TENSOR_NAME: Final = 8
_TENSOR_EXTERNAL_DATA: Final = 13
_ENTRY_KEY: Final = 1
_ENTRY_VALUE: Final = 2

_FLOAT16, _BFLOAT16 = 10, 16  # TensorProto.DataType
_KERNEL_AXES: Final = 3  # a convolution's weights have three axes or more, a product's two
_MORE: Final = 0x80  # the bit of a varint's bytes but the last


@dataclass(frozen=True, slots=True)
class WeightSizes:
    """Where the bytes of a file's weights lie, by what a runtime makes of them.

    Attributes:
        inside_bytes: The .onnx file itself.
        plain_bytes: Outside, and used as they lie there.
        kernels_bytes: Outside, with three axes or more: weights of convolutions, which are put in another
            order when the file is opened.
        float16_bytes: Outside, stored in float16.
        bfloat16_bytes: Outside, stored in bfloat16.
    """

    inside_bytes: int
    plain_bytes: int = 0
    kernels_bytes: int = 0
    float16_bytes: int = 0
    bfloat16_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """The file and all that lies outside of it."""
        return self.inside_bytes + self.plain_bytes + self.kernels_bytes + self._narrow_bytes

    @property
    def _narrow_bytes(self) -> int:
        return self.float16_bytes + self.bfloat16_bytes

    # Measured with onnxruntime 1.31.1, MiB of heap after opening. 128 of float32 for products: 129 copied, 1
    # mapped. 108 of kernels: 109 either way. 64 of float16 or bfloat16 that the graph casts to float32: 162
    # to 186 copied; mapped 186 of float16 (it is cast then whatever one says) and 1 of bfloat16.

    @property
    def mapped_bytes(self) -> int:
        """What is copied of weights that are left in their file as far as they can be."""
        return self.inside_bytes + self.kernels_bytes + 3 * self.float16_bytes

    @property
    def packed_bytes(self) -> int:
        """What is packed for the processor of weights that are copied."""
        return self.plain_bytes + 2 * self._narrow_bytes

    @property
    def copied_bytes(self) -> int:
        """All that is copied of weights that are copied, `packed_bytes` among it."""
        return self.inside_bytes + self.kernels_bytes + self._narrow_bytes + self.packed_bytes


@dataclass(frozen=True, slots=True)
class OutsideTensor:
    """An initializer whose numbers lie outside of the .onnx file.

    Attributes:
        name: Of the initializer.
        data_type: A number of onnx.TensorProto.DataType.
        shape: Its sizes.
        file: As the graph names it.
        offset: Its first byte there.
        size_bytes: How many it has; ``None`` where the graph does not say.
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    file: str
    offset: int
    size_bytes: int | None


def outside_tensors(path: Path) -> tuple[OutsideTensor, ...]:
    """Return the initializers of a file that lie outside of it.

    Raises:
        ValueError: The file is no protobuf message.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = [_outside(content, tensor) for tensor in _initializers(content)]
    return tuple(tensor for tensor in found if tensor is not None)


def _outside(content: mmap.mmap, tensor: Span) -> OutsideTensor | None:
    name, data_type = "", 0
    shape: list[int] = []
    entries: dict[str, str] = {}
    for field in fields(content, tensor):
        if field.number == _TENSOR_DIMS:
            shape += varints(content, field)
        elif field.number == _TENSOR_DATA_TYPE:
            data_type = field.value
        elif field.number == _TENSOR_NAME:
            name = text(content, field)
        elif field.number == _TENSOR_EXTERNAL_DATA:
            entries[_text(content, field.span, _ENTRY_KEY)] = _text(content, field.span, _ENTRY_VALUE)
    if "location" not in entries:
        return None
    size_bytes = int(entries["length"]) if "length" in entries else None
    offset = int(entries.get("offset", "0"))
    return OutsideTensor(name, data_type, tuple(shape), entries["location"], offset, size_bytes)


def weights_size(path: Path) -> int:
    """Return the size of the file and of the data that its initializers keep outside of it, in bytes.

    Raises:
        ValueError: The file is no protobuf message, or it names data that is not there.
    """
    return weight_sizes(path).total_bytes


def weight_sizes(path: Path) -> WeightSizes:
    """Return the sizes of the file and of the data that its initializers keep outside of it.

    Raises:
        ValueError: The file is no protobuf message, or it names data that is not there.
    """
    size = path.stat().st_size
    if size == 0:
        return WeightSizes(0)
    outside = {"plain_bytes": 0, "kernels_bytes": 0, "float16_bytes": 0, "bfloat16_bytes": 0}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for tensor in _initializers(content):
            n_bytes = _external_size(content, tensor, path.parent)
            if n_bytes:
                outside[_kind(content, tensor)] += n_bytes
    return WeightSizes(size, **outside)


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


def _kind(content: mmap.mmap, tensor: Span) -> str:
    n_axes, data_type = 0, 0
    for field in fields(content, tensor):
        if field.number == _TENSOR_DATA_TYPE and field.wire_type == VARINT:
            data_type = field.value
        elif field.number == _TENSOR_DIMS:
            start, end = field.span
            packed = sum(byte < _MORE for byte in content[start:end])
            n_axes += 1 if field.wire_type == VARINT else packed
    narrow = {_FLOAT16: "float16_bytes", _BFLOAT16: "bfloat16_bytes"}
    return narrow.get(data_type, "kernels_bytes" if n_axes >= _KERNEL_AXES else "plain_bytes")


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
