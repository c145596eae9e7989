"""Initializers bear the names of the module's weights, also those that an optimizer transposed.

A name ties a tensor to its place: two weights of one shape that are swapped later are found out by it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from anyport.graph.tensorbits import array_of
from anyport.source.adapter import PREFIX

if TYPE_CHECKING:
    import onnx_ir as ir

    from anyport.graph.capture import Capture

_MATRIX = 2


def restore_names(model: ir.Model, captured: Capture) -> frozenset[str]:
    """Call the weights what the module calls them, without the adapter's prefix, and return those names."""
    known = {*captured.program.state_dict, *captured.program.constants}
    weight_names = set()
    for name, value in list(model.graph.initializers.items()):
        own = name.removeprefix(PREFIX)
        if own != name and own not in model.graph.initializers:
            rename(model, value, own)
        if name in known:
            weight_names.add(value.name or name)
    return frozenset(weight_names)


def name_transposed(model: ir.Model, captured: Capture) -> frozenset[str]:
    """Give matrices that are some weight's transpose that weight's name, and return the names given.

    Where two weights have equal content, or a name is taken, the exporter's name stays.
    """
    wanted = _transposes(captured, set(model.graph.initializers))
    if not wanted:
        return frozenset()
    given = set()
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or len(tensor.shape) != _MATRIX or value.name in captured.program.state_dict:
            continue
        name = wanted.pop(_digest(tensor.numpy()), None)
        if name is not None and name not in model.graph.initializers:
            rename(model, value, name)
            given.add(name)
    return frozenset(given)


def _transposes(captured: Capture, taken: set[str]) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    twice: set[bytes] = set()
    for full_name, value in captured.program.state_dict.items():
        name = full_name.removeprefix(PREFIX)
        if name in taken or not isinstance(value, Tensor) or value.ndim != _MATRIX:
            continue
        digest = _digest(array_of(value).T)
        twice |= {digest} & found.keys()
        found[digest] = name
    return {digest: name for digest, name in found.items() if digest not in twice}


def _digest(array: np.ndarray) -> bytes:
    content = np.ascontiguousarray(array)
    return hashlib.sha256(f"{content.dtype.itemsize}{content.shape}".encode() + content.tobytes()).digest()


def rename(model: ir.Model, value: ir.Value, name: str) -> None:
    """Rename a value; an initializer is registered anew."""
    if value.name is not None and value.name in model.graph.initializers:
        model.graph.initializers.pop(value.name)
        value.name = name
        if value.const_value is not None:
            value.const_value.name = name
        model.graph.initializers[name] = value
    else:
        value.name = name
