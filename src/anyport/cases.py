"""The inputs that prove a model: named recipes for arrays whose bits are the same on every machine.

Random numbers come from SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
OOPSLA 2014), counter based, so that any language reproduces them in five lines; ``docs/bundle.md``
specifies the mapping from bits to values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import numpy as np

from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.tensors import TensorSpec

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_N_UNIFORMS: Final = 4  # the sum of four uniforms is close to a normal distribution and needs only additions

CaseKind = Literal["typical", "boundary", "random"]


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="constant"):
    """Every element has the same value."""

    value: float


class Normal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="normal"):
    """Near-normal values: mean 0, standard deviation ``scale``, never beyond 3.5 ``scale``."""

    seed: int
    scale: float = 1.0


class Uniform(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="uniform"):
    """Values from ``low`` to ``high``: whole and inclusive for integers, drawn below ``high`` for floats.

    A float is rounded to its type last, so that it may be ``high`` itself.
    """

    seed: int
    low: float
    high: float


class Padding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="padding"):
    """A mask: row ``i`` (first axis) has its own number of ones along the last axis, then zeros.

    Attributes:
        seed: Chooses the lengths of the rows, from 1 to the size of the last axis.
        left: The zeros come first.
        empty_row: The last row (the only row of a batch of one) has no ones at all.
    """

    seed: int
    left: bool = False
    empty_row: bool = False


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="stored"):
    """An array that was given, kept under this key of the proof's arrays."""

    key: str


Fill = Constant | Normal | Uniform | Padding | Stored


@dataclass(frozen=True, slots=True)
class Case:
    """Named inputs of one run.

    Attributes:
        name: Short and unique, such as ``batch=5``.
        kind: ``typical`` (given by the user), ``boundary`` or ``random``.
        sizes: The size of each named axis.
        fills: How each input's array is made.
        stored: The arrays of `Stored` fills by key.
    """

    name: str
    kind: CaseKind
    sizes: Mapping[str, int]
    fills: Mapping[str, Fill]
    stored: Mapping[str, np.ndarray]

    def arrays(self, inputs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
        """Make the arrays, one for each input."""
        return {spec.name: self._array(spec) for spec in inputs}

    def _array(self, spec: TensorSpec) -> np.ndarray:
        fill = self.fills[spec.name]
        if isinstance(fill, Stored):
            return self.stored[fill.key]
        return make_array(fill, spec.shape(self.sizes), spec.dtype)

    def size_bytes(self, inputs: Sequence[TensorSpec]) -> int:
        """Return how many bytes the input arrays take, without making them."""
        return sum(
            int(np.prod(spec.shape(self.sizes), dtype=np.int64)) * np.dtype(spec.dtype).itemsize
            for spec in inputs
        )


def make_array(fill: Fill, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Make the array that a fill describes.

    >>> make_array(Uniform(seed=7, low=0, high=9), (5,), "int64")
    array([7, 4, 6, 3, 4])

    Raises:
        UsageError: The fill is `Stored`, which only a `Case` can look up.
    """
    if isinstance(fill, Constant):
        return np.full(shape, fill.value, dtype=dtype)
    if isinstance(fill, Normal):
        return _normal(fill, shape).astype(dtype)
    if isinstance(fill, Uniform):
        return _uniform(fill, shape, dtype)
    if isinstance(fill, Padding):
        return _padding(fill, shape).astype(dtype)
    raise UsageError(f"the array '{fill.key}' is stored, not made")


def splitmix64(seed: int, n: int) -> np.ndarray:
    """Return ``n`` random words: uint64[n].

    Element ``i`` is SplitMix64's finalizer of ``seed + (i + 1) * 0x9E3779B97F4A7C15`` modulo 2^64.
    """
    with np.errstate(over="ignore"):
        state = np.arange(1, n + 1, dtype=np.uint64) * _GOLDEN + np.uint64(seed % 2**64)
        state = (state ^ (state >> np.uint64(30))) * _MIX_1
        state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


def _unit(seed: int, n: int) -> np.ndarray:
    """Return float64[n] in [0, 1): the upper 53 bits of each word over 2^53."""
    return (splitmix64(seed, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _normal(fill: Normal, shape: tuple[int, ...]) -> np.ndarray:
    n = int(np.prod(shape, dtype=np.int64))
    units = _unit(fill.seed, n * _N_UNIFORMS).reshape(n, _N_UNIFORMS)
    total = ((units[:, 0] + units[:, 1]) + units[:, 2]) + units[:, 3]
    # a sum of 4 uniforms has mean 2 and variance 1/3
    values: np.ndarray = (total - 2.0) * (fill.scale * 1.7320508075688772)
    return values.reshape(shape)


def _uniform(fill: Uniform, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    n = int(np.prod(shape, dtype=np.int64))
    if np.issubdtype(np.dtype(dtype), np.floating):
        return (fill.low + _unit(fill.seed, n) * (fill.high - fill.low)).reshape(shape).astype(dtype)
    low, high = int(fill.low), int(fill.high)
    n_values = high - low + 1
    words = splitmix64(fill.seed, n)
    if n_values < 2**64:
        words = words % np.uint64(n_values)
    # unsigned addition wraps as two's complement does, so that every range of int64 works
    with np.errstate(over="ignore"):
        values: np.ndarray = words + np.uint64(low % 2**64)
    return values.astype(np.int64).reshape(shape).astype(dtype)


def _padding(fill: Padding, shape: tuple[int, ...]) -> np.ndarray:
    if not shape:
        return np.ones(shape)
    n_rows, length = shape[0], shape[-1]
    if length == 0:
        return np.zeros(shape)
    n_ones = 1 + (splitmix64(fill.seed, n_rows) % np.uint64(length)).astype(np.int64)
    if fill.empty_row:
        n_ones[-1] = 0
    place = np.arange(length)
    rows: np.ndarray = (
        place[None, :] >= length - n_ones[:, None] if fill.left else place[None, :] < n_ones[:, None]
    )
    rows = rows[-1] if len(shape) == 1 else rows.reshape(n_rows, *(1,) * (len(shape) - 2), length)
    mask: np.ndarray = np.broadcast_to(rows, shape).astype(np.float64)
    return mask
