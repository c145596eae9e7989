"""One weight in 8 bits: its scales, and its numbers computed when they are written.

A weight is quantized symmetrically; as unsigned numbers it is the same with an offset, equal in all channels,
which is what every kernel takes. Memory: one float copy of one weight at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from anyport.compress.methods import Int8Dynamic, Int8Static

_LIMIT: Final = 127
_REDUCED_LIMIT: Final = 63  # 7 bits: two products of 255 x 63 fit into 16 bits
_BLOCK_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class WeightForm:
    """How weights are stored.

    Attributes:
        dtype: INT8 or UINT8.
        limit: The largest number; the least is its negative.
        offset: Added to all; it stands for zero.
        per_channel: One scale for each channel, or one for the whole weight.
    """

    dtype: ir.DataType
    limit: int
    offset: int
    per_channel: bool


def weight_form(method: Int8Dynamic | Int8Static) -> WeightForm:
    """Return how a method stores its weights."""
    limit = _REDUCED_LIMIT if method.reduce_range else _LIMIT
    if method.weight == "u8":
        return WeightForm(ir.DataType.UINT8, limit, limit + 1, method.per_channel)
    return WeightForm(ir.DataType.INT8, limit, 0, method.per_channel)


def weight_scales(array: np.ndarray, axis: int, form: WeightForm) -> np.ndarray:
    """Return the scale of each channel along an axis: float32[channels], or float32[] for one in all.

    A channel of zeros has the scale 1.
    """
    others = tuple(place for place in range(array.ndim) if place != axis)
    reduced = others if form.per_channel else None
    most = np.maximum(array.max(axis=reduced), -array.min(axis=reduced)).astype(np.float64) / form.limit
    # a scale below the least normal float32 would lose its digits
    scales: np.ndarray = np.where(most > np.finfo(np.float32).tiny, most, 1.0).astype(np.float32)
    return scales


def quantized(array: np.ndarray, scales: np.ndarray, axis: int, form: WeightForm) -> np.ndarray:
    """Return round(array / scale) + offset in the type of the form, computed block by block."""
    answer = np.empty(array.shape, np.uint8 if form.dtype == ir.DataType.UINT8 else np.int8)
    n_rows = max(1, _BLOCK_BYTES * array.shape[0] // max(array.nbytes, 1))
    for start in range(0, array.shape[0], n_rows):
        rows = slice(start, start + n_rows)
        part = scales
        if scales.ndim:
            shape = [1] * array.ndim
            shape[axis] = -1
            part = (scales[rows] if axis == 0 else scales).reshape(shape)
        numbers = array[rows] / part
        np.rint(numbers, out=numbers)
        np.clip(numbers, -form.limit, form.limit, out=numbers)
        answer[rows] = numbers + form.offset
    return answer
