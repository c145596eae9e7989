"""Weights of 16 bits that the graph computes with in float32: stored as they are, cast once.

A checkpoint in bfloat16 or float16 is computed in float32, which holds each of its numbers; half of the bytes
of a float32 copy say nothing. In the file such a weight keeps its name and its 16 bits, and a ``Cast`` to
float32 stands at the start of the graph: ONNX Runtime computes it when it opens the file, and where that is
switched off, a Cast at the start needs least memory (one written next to its reader runs long before it).

Everything that reads a graph to change it sees float32 weights under their own names (`widen`); what is
narrow in the file is decided when it is written (`narrow_weights`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TYPES: Final = (ir.DataType.BFLOAT16, ir.DataType.FLOAT16)
LEAST_BYTES: Final = 1024  # of a float32 weight: a Cast and the names of its values take 100
_LEAST_SHARE: Final = 0.1  # of the float32 weights; halving less saves less than 5 % of a file
_BFLOAT16_OPSET: Final = 13  # the first whose Cast reads bfloat16
_FIRST_BLOCK, _BLOCK = 1 << 12, 1 << 20  # elements: numbers of 32 bits fail in the first few


class Widened(ir.LazyTensor):
    """A float32 tensor that is stored in 16 bits; it is widened each time it is read.

    Args:
        narrow: What is stored.
    """

    def __init__(self, narrow: ir.TensorProtocol) -> None:
        shape = ir.Shape(narrow.shape.numpy())
        super().__init__(partial(_wide_tensor, narrow), ir.DataType.FLOAT, shape, name=narrow.name)
        self.narrow = narrow


def _wide_tensor(narrow: ir.TensorProtocol) -> ir.TensorProtocol:
    array: np.ndarray = narrow.numpy()
    return ir.Tensor(widened(array if narrow.dtype == ir.DataType.FLOAT16 else array.view(np.uint16)))


def stored_tensor(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol | None:
    """Return the tensor that is in the file."""
    return tensor.narrow if isinstance(tensor, Widened) else tensor


def widened(array: np.ndarray) -> np.ndarray:
    """Return the float32 numbers of an array of float16, or of the bits of bfloat16 as uint16.

    >>> widened(np.array([16256, 49088], np.uint16)).tolist()
    [1.0, -1.5]
    """
    if array.dtype == np.float16:
        return array.astype(np.float32)
    bits = np.atleast_1d(array).astype(np.uint32)
    bits <<= 16  # in place: of a large weight a second copy is felt
    return bits.view(np.float32).reshape(array.shape)


def widen(model: ir.Model) -> ir.Model:
    """Put float32 weights in the place of 16-bit ones whose only readers are Casts to float32.

    Nothing is read or copied: the numbers are widened when they are asked for.

    Returns:
        The model, which is changed.
    """
    for value in list(model.graph.initializers.values()):
        casts = _casts(value, model.graph)
        for cast in casts:
            cast.outputs[0].replace_all_uses_with(value)
            model.graph.remove(cast, safe=True)
        if casts and value.const_value is not None:
            value.const_value = Widened(value.const_value)
            value.type = ir.TensorType(ir.DataType.FLOAT)
    return model


def _casts(value: ir.Value, graph: ir.Graph) -> list[ir.Node]:
    """Return the Casts that are all that reads a 16-bit weight; none if somebody else does."""
    tensor = value.const_value
    if tensor is None or tensor.dtype not in TYPES or value.is_graph_input() or value.is_graph_output():
        return []
    readers = [node for node, _ in value.uses()]
    return readers if all(_is_widening(node, graph) for node in readers) else []


def _is_widening(node: ir.Node, graph: ir.Graph) -> bool:
    return (
        node.op_type == "Cast"
        and not node.domain
        and node.graph is graph
        and node.attributes["to"].as_int() == ir.DataType.FLOAT
        and not node.outputs[0].is_graph_output()
    )


def is_narrow(model: ir.Model) -> bool:
    """Say whether a graph that was widened has 16-bit weights in its file."""
    return any(isinstance(value.const_value, Widened) for value in model.graph.initializers.values())


def narrow_weights(model: ir.Model) -> None:
    """Store the float32 weights that 16 bits hold exactly in 16 bits, if these are a tenth of all or more.

    So many fit only if they come from a checkpoint of 16 bits: drawn or trained in float32, a tensor fits
    where all its numbers are one number, and such a tensor does not count.

    Cost: each weight is read once, up to the first number that does not fit; one is held at a time.

    Args:
        model: It is changed; what it computes is the same to the last bit.
    """
    weights = {n: t for n, v in model.graph.initializers.items() if (t := _float_weight(v)) is not None}
    fits = {name: fit for name, tensor in weights.items() if (fit := _fit(tensor, _types_of(model))).types}
    telling: Counter[ir.DataType] = Counter()
    for name, fit in fits.items():
        if not fit.is_constant:
            telling.update(dict.fromkeys(fit.types, weights[name].nbytes))
    all_bytes = sum(tensor.nbytes for tensor in weights.values())
    if telling and max(telling.values()) >= _LEAST_SHARE * all_bytes:
        order = sorted(TYPES, key=lambda dtype: -telling[dtype])
        store_narrow(model, {n: next(t for t in order if t in fit.types) for n, fit in fits.items()})


def store_narrow(model: ir.Model, types: Mapping[str, ir.DataType]) -> None:
    """Store float32 weights in 16 bits; their numbers are rounded when they are written, if they must be.

    Args:
        model: It is changed.
        types: Initializer -> `TYPES`; to bfloat16 only if it holds the numbers.
    """
    graph = model.graph
    names = {str(v.name) for node in graph.all_nodes() for v in node.outputs} | set(graph.initializers)
    names |= {str(value.name) for value in graph.inputs}
    casts = []
    for name, dtype in types.items():
        value = graph.initializers[name]
        tensor = value.const_value
        if tensor is None:
            continue
        wide = ir.Value(name=_fresh(f"{name}_float32", names), type=value.type, shape=value.shape)
        value.replace_all_uses_with(wide)
        words = {"to": int(ir.DataType.FLOAT)}
        casts.append(ir.node("Cast", [value], words, outputs=[wide], name=f"{wide.name}_Cast"))
        value.const_value = _narrowed(tensor, dtype)
        value.type = ir.TensorType(dtype)
    if casts:
        graph.insert_before(graph[0], casts)


def _fresh(name: str, names: set[str]) -> str:
    while name in names:
        name += "_"
    names.add(name)
    return name


def _float_weight(value: ir.Value) -> ir.TensorProtocol | None:
    """Return the tensor of a float32 weight that is large enough, is read, and that no caller overrides."""
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.nbytes < LEAST_BYTES:
        return None
    if value.is_graph_input() or value.is_graph_output() or not value.uses():
        return None
    return tensor


def _types_of(model: ir.Model) -> tuple[ir.DataType, ...]:
    """Return the types that a Cast of this model can read."""
    is_new = model.opset_imports.get("", 0) >= _BFLOAT16_OPSET
    return TYPES if is_new else (ir.DataType.FLOAT16,)


@dataclass(frozen=True, slots=True)
class _Fit:
    """What holds a tensor exactly, and whether all its numbers are one number."""

    types: frozenset[ir.DataType]
    is_constant: bool


def _fit(tensor: ir.TensorProtocol, types: tuple[ir.DataType, ...]) -> _Fit:
    array = np.ascontiguousarray(tensor.numpy()).reshape(-1)
    left, is_constant = frozenset(types), True
    for block in _blocks(array):
        left = frozenset(dtype for dtype in left if _holds(dtype, block))
        is_constant = is_constant and bool((block.view(np.uint32) == array[:1].view(np.uint32)).all())
        if not left:
            break
    return _Fit(left, is_constant)


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    yield array[:_FIRST_BLOCK]
    for start in range(_FIRST_BLOCK, array.size, _BLOCK):
        yield array[start : start + _BLOCK]


def _holds(dtype: ir.DataType, block: np.ndarray) -> bool:
    """Say whether every number of a float32 array comes back from 16 bits with all its bits."""
    bits = block.view(np.uint32)
    if dtype == ir.DataType.BFLOAT16:  # the upper half of a float32
        return not bool((bits & 0xFFFF).any())
    with np.errstate(all="ignore"):
        return bool((block.astype(np.float16).astype(np.float32).view(np.uint32) == bits).all())


def _narrowed(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    """Return a tensor whose 16-bit numbers are computed when they are read."""
    narrow = stored_tensor(tensor)
    if narrow is not None and narrow.dtype == dtype:
        return narrow
    return ir.LazyTensor(
        partial(_narrow_tensor, tensor, dtype), dtype, ir.Shape(tensor.shape.numpy()), name=tensor.name
    )


def _narrow_tensor(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    array: np.ndarray = tensor.numpy()
    if dtype == ir.DataType.FLOAT16:
        return ir.Tensor(array.astype(np.float16))
    upper = (np.atleast_1d(np.ascontiguousarray(array)).view(np.uint32) >> 16).astype(np.uint16)
    return ir.Tensor(upper.reshape(array.shape), dtype=dtype)
