"""The weights of an .onnx file, each read when it is asked for: for the accounting leg of a verdict."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from anyport.errors import BundleError
from anyport.graph.narrow import widened
from anyport.verify import LazyArray

if TYPE_CHECKING:
    from pathlib import Path

_MAX_CONSTANT_NODES: Final = 100_000
_NARROW: Final = (TensorProto.BFLOAT16, TensorProto.FLOAT16)


def read_initializers(path: Path, folder: Path | None = None) -> dict[str, LazyArray]:
    """Return every initializer and constant of an .onnx file by name.

    External data is mapped, and read when an array is loaded. A weight of 16 bits that the graph casts to
    float32 is the float32 array that it computes with.

    Args:
        path: The file.
        folder: What the places of external data are relative to; ``None`` is the model's folder.

    Raises:
        BundleError: External data lies outside of this folder, or beyond its file.
    """
    folder = path.parent if folder is None else folder
    model = onnx.load(str(path), load_external_data=False)
    found: dict[str, LazyArray] = {}
    cast = {node.input[0] for node in model.graph.node if _is_widening(node)}
    for tensor in model.graph.initializer:
        lazy = _lazy(tensor, folder)
        is_wide = tensor.name in cast and tensor.data_type in _NARROW
        found[tensor.name] = _widened(lazy) if is_wide else lazy
    for node in list(model.graph.node)[:_MAX_CONSTANT_NODES]:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                found[node.output[0]] = _lazy(attribute.t, folder)
    return found


def _is_widening(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute)


def _widened(narrow: LazyArray) -> LazyArray:
    return LazyArray(narrow.shape, "float32", lambda: widened(narrow.load()))


def _lazy(tensor: TensorProto, folder: Path) -> LazyArray:
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    # numpy has no bfloat16 of its own: its bits stand for it, as in the expectations
    dtype = "uint16" if dtype == "bfloat16" else dtype
    return LazyArray(tuple(tensor.dims), dtype, partial(_load, tensor, folder))


def _load(tensor: TensorProto, folder: Path) -> np.ndarray:
    if tensor.data_location != TensorProto.EXTERNAL:
        array = np.asarray(numpy_helper.to_array(tensor))
    else:
        array = _map_external(tensor, folder)
    return array.view(np.uint16) if str(array.dtype) == "bfloat16" else array


def _map_external(tensor: TensorProto, folder: Path) -> np.ndarray:
    place = {entry.key: entry.value for entry in tensor.external_data}
    file = (folder / place["location"]).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise BundleError(f"weight '{tensor.name}' lies outside the model's folder", where=place["location"])
    if not file.is_file():
        raise BundleError(f"there is no file '{place['location']}', where weight '{tensor.name}' should be")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    shape, offset = tuple(tensor.dims), int(place.get("offset", 0))
    size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if offset < 0 or offset + size_bytes > file.stat().st_size:
        raise BundleError(
            f"weight '{tensor.name}' ends at byte {offset + size_bytes}, '{file.name}' has "
            f"{file.stat().st_size}: the file is cut short"
        )
    mapped = np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape or (1,))
    return np.asarray(mapped).reshape(shape)
