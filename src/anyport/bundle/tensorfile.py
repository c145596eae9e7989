"""Safetensors files, strictly: our own small reader and writer, so that numpy is enough to run a bundle.

The format (https://huggingface.co/docs/safetensors): eight bytes with the length of the header (unsigned,
little-endian), the header in JSON, then the tensors without gaps. `read_header` refuses everything that the
format does not allow, before it reads or reserves anything that a hostile header asks for.
"""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from anyport.bundle.disk import disk_errors, open_regular
from anyport.bundle.paths import shown
from anyport.bundle.strictjson import parse_json
from anyport.errors import BundleError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

MAX_HEADER_BYTES: Final = 32 << 20
ALIGNMENT_BYTES: Final = 64
_LENGTH_BYTES: Final = 8
_MAX_AXES: Final = 32
_MAX_NAME_CHARS: Final = 1000
_KEYS: Final = frozenset({"data_offsets", "dtype", "shape"})

# numpy has no bfloat16 and no 8-bit floats: their bits are read as unsigned numbers of the same size
DTYPES: Final = {
    "BF16": "<u2",
    "BOOL": "|b1",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "F8_E4M3": "|u1",
    "F8_E5M2": "|u1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "I8": "|i1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "U8": "|u1",
}
_BITS_ONLY: Final = frozenset({"BF16", "F8_E4M3", "F8_E5M2"})
_CODES: Final = {text[1:]: code for code, text in DTYPES.items() if code not in _BITS_ONLY}

TensorForm = tuple[str, str, tuple[int, ...]]
"""Name, type (a key of `DTYPES`) and shape of a tensor that is to be written."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies in its file.

    Attributes:
        name: Its key.
        dtype: A key of `DTYPES`, such as ``F32`` or ``BF16``.
        shape: Its sizes.
        offset: Its first byte, counted from the start of the file.
        size_bytes: How many bytes it has.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


def dtype_code(dtype: np.dtype[Any]) -> str:
    """Return the word of safetensors for a type of numpy.

    >>> dtype_code(np.dtype("float32"))
    'F32'

    Raises:
        UsageError: Safetensors has no such type.
    """
    code = _CODES.get(dtype.str[1:])
    if code is None:
        raise UsageError(f"safetensors has no type for {dtype}", do="use bool, intN, uintN or floatN")
    return code


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Read the header of a safetensors file; the entries come in the order of the file.

    Raises:
        BundleError: The file is truncated, or its header is not exactly what the format allows.
    """
    with open_regular(path) as opened, disk_errors("read", path):
        size_bytes = os.fstat(opened.fileno()).st_size
        start = opened.read(_LENGTH_BYTES)
        length = int.from_bytes(start, "little")
        if len(start) < _LENGTH_BYTES or length > size_bytes - _LENGTH_BYTES:
            raise _refusal(path, f"its header must have {length} bytes, the file has {size_bytes}")
        if length > MAX_HEADER_BYTES:
            raise _refusal(path, f"its header has {length} bytes, at most {MAX_HEADER_BYTES} are read")
        content = opened.read(length)
    if len(content) != length or not content.startswith(b"{"):
        raise _refusal(path, "its header does not start with '{'")
    tree = parse_json(content, f"the header of '{path.name}'", str(path))
    _check_metadata(path, tree.pop("__metadata__", {}))
    start_of_data = _LENGTH_BYTES + length
    entries = [_entry(path, name, words, start_of_data) for name, words in tree.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.size_bytes))
    _check_cover(path, entries, start_of_data, size_bytes)
    return {entry.name: entry for entry in entries}


def _refusal(path: Path, reason: str) -> BundleError:
    return BundleError(f"'{path.name}' is no safetensors file: {reason}", where=str(path))


def _check_metadata(path: Path, metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refusal(path, "its __metadata__ is not a table of words")


def _entry(path: Path, name: str, words: object, start_of_data: int) -> TensorEntry:
    if not isinstance(words, dict) or words.keys() != _KEYS or len(name) > _MAX_NAME_CHARS:
        raise _refusal(
            path, f"tensor {shown(name)} must have dtype, shape and data_offsets, and nothing else"
        )
    dtype, shape, offsets = words["dtype"], words["shape"], words["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _refusal(
            path,
            f"tensor {shown(name)} has the type {shown(str(dtype))}{did_you_mean(str(dtype)[:20], DTYPES)}",
        )
    if not _are_sizes(shape) or len(shape) > _MAX_AXES:
        raise _refusal(path, f"the shape of tensor {shown(name)} is {shown(str(shape))}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004 - begin and end
        raise _refusal(path, f"the offsets of tensor {shown(name)} are {shown(str(offsets))}")
    itemsize = np.dtype(DTYPES[dtype]).itemsize
    if math.prod(n or 1 for n in shape) * itemsize > sys.maxsize:  # numpy refuses [0, 2**63] too
        raise _refusal(path, f"the shape of tensor {shown(name)} is {shown(str(shape))}")
    size_bytes = math.prod(shape) * itemsize
    if offsets[1] - offsets[0] != size_bytes:
        raise _refusal(
            path,
            f"tensor {shown(name)} is {dtype}{shape}, {size_bytes} bytes, and has {offsets[1] - offsets[0]}",
        )
    return TensorEntry(name, dtype, tuple(shape), start_of_data + offsets[0], size_bytes)


def _are_sizes(values: Any) -> bool:  # noqa: ANN401 - JSON has any type
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_cover(path: Path, entries: Sequence[TensorEntry], start: int, size_bytes: int) -> None:
    """Refuse overlaps, holes, and tensors or bytes beyond the other."""
    end = start
    for entry in entries:
        if entry.offset != end:
            kind = "overlaps the tensor before it" if entry.offset < end else "leaves a hole before it"
            raise _refusal(path, f"tensor {shown(entry.name)} {kind}")
        end += entry.size_bytes
    if end != size_bytes:
        cut = [entry.name for entry in entries if entry.offset + entry.size_bytes > size_bytes]
        more = f" and {len(cut) - 1} more" if len(cut) > 1 else ""
        lost = f": {shown(cut[0])}{more} cut off" if cut else ""
        raise _refusal(path, f"its tensors end at byte {end}, the file at byte {size_bytes}{lost}")


def read_tensor(path: Path, entry: TensorEntry) -> np.ndarray:
    """Read one tensor; memory: that tensor.

    Returns:
        The array in the type of `DTYPES`: for ``BF16`` and 8-bit floats the bits, as unsigned numbers.

    Raises:
        BundleError: The file ends before the tensor does, or a ``BOOL`` is neither 0 nor 1.
    """
    dtype = np.dtype(DTYPES[entry.dtype])
    array = np.empty(entry.shape, np.uint8 if entry.dtype == "BOOL" else dtype)
    view = array.reshape(-1).view(np.uint8).data
    with open_regular(path) as opened, disk_errors("read", path):
        opened.seek(entry.offset)
        n_read = 0
        while n_read < len(view) and (n := opened.readinto(view[n_read:])):
            n_read += n
    if n_read != entry.size_bytes:
        raise _refusal(path, f"the file ends inside tensor {shown(entry.name)}")
    if entry.dtype != "BOOL":
        return array.astype(dtype.newbyteorder("="), copy=False)
    if array.size and array.max() > 1:
        raise _refusal(path, f"tensor {shown(entry.name)} is BOOL and holds the byte {array.max()}")
    return array.view(np.bool_)


class TensorFileWriter:
    """Writes a safetensors file, the header first and then one tensor after the other.

    >>> from pathlib import Path; from tempfile import mkdtemp
    >>> place = Path(mkdtemp()) / "w.safetensors"
    >>> with TensorFileWriter(place, [("bias", "F32", (2,))]) as writer:
    ...     writer.write("bias", np.zeros(2, np.float32))
    >>> read_header(place)["bias"].offset
    128

    Args:
        path: The file, which must not exist yet.
        entries: The tensors in their order; larger element types first, so that each is aligned.

    Raises:
        BundleError: The file cannot be written.
        UsageError: A name comes twice, a type is unknown, or a tensor would not be aligned.
    """

    def __init__(self, path: Path, entries: Sequence[TensorForm]) -> None:
        header, self._sizes = _layout(entries)
        self._path = path
        self._forms = list(entries)
        self._n_written = 0
        with disk_errors("write", path):
            self._file = path.open("xb")
        try:
            self._put(header)
        except BaseException:
            self._give_up()
            raise

    def write(self, name: str, array: np.ndarray) -> None:
        """Write the next tensor.

        Raises:
            BundleError: The disk is full.
            UsageError: Another tensor comes next, or this one has another type or shape than announced.
        """
        if self._n_written == len(self._forms):
            raise UsageError(f"'{self._path.name}': tensor '{name}' was not announced")
        wanted, code, shape = self._forms[self._n_written]
        if name != wanted:
            raise UsageError(f"'{self._path.name}': tensor '{wanted}' comes next, not '{name}'")
        if array.shape != shape or not _is_of(array.dtype, code):
            raise UsageError(
                f"'{self._path.name}': tensor '{name}' is {array.dtype}{list(array.shape)}, "
                f"{code}{list(shape)} was announced"
            )
        little = array.astype(array.dtype.newbyteorder("<"), copy=False) if sys.byteorder == "big" else array
        self._put(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)
        self._n_written += 1

    def close(self) -> None:
        """Close the file.

        Raises:
            UsageError: Not all tensors were written.
        """
        with disk_errors("write", self._path):
            self._file.close()
        if self._n_written < len(self._forms):
            missing = self._forms[self._n_written][0]
            raise UsageError(f"'{self._path.name}': tensor '{missing}' was announced and not written")

    def _put(self, content: bytes | memoryview) -> None:
        with disk_errors("write", self._path, sum(self._sizes)):
            self._file.write(content)

    def _give_up(self) -> None:
        with suppress(OSError):  # closing writes what is buffered, and the disk may be full still
            self._file.close()

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, and after an error only that."""
        if error is None:
            self.close()
        else:
            self._give_up()


def _layout(entries: Sequence[TensorForm]) -> tuple[bytes, list[int]]:
    """Return the first bytes of the file up to the data, and the size of each tensor."""
    tree: dict[str, Any] = {}
    sizes = []
    end = 0
    for name, code, shape in entries:
        if name in tree or name == "__metadata__" or len(name) > _MAX_NAME_CHARS:
            raise UsageError(f"a tensor cannot be called {shown(name)}, or is called so twice")
        if code not in DTYPES:
            raise UsageError(f"tensor '{name}' has the type '{code}'{did_you_mean(code, DTYPES)}")
        itemsize = np.dtype(DTYPES[code]).itemsize
        if end % itemsize:
            raise UsageError(
                f"tensor '{name}' would lie at byte {end}, which {code} may not",
                do="sort the tensors: larger element types first",
            )
        sizes.append(math.prod(shape) * itemsize)
        tree[name] = {"dtype": code, "shape": list(shape), "data_offsets": [end, end + sizes[-1]]}
        end += sizes[-1]
    header = json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-(_LENGTH_BYTES + len(header)) % ALIGNMENT_BYTES)
    if len(header) > MAX_HEADER_BYTES:
        raise UsageError(
            f"{len(tree)} tensors need a header of {len(header)} bytes, at most {MAX_HEADER_BYTES}"
        )
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header, sizes


def _is_of(dtype: np.dtype[Any], code: str) -> bool:
    wanted = np.dtype(DTYPES[code])
    return dtype.itemsize == wanted.itemsize if code in _BITS_ONLY else dtype == wanted
