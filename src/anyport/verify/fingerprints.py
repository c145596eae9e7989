"""What a tensor holds, in a few words: to find the same numbers again under another name or layout."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK: Final = 2**20  # elements; mixing a chunk takes 24 MiB whatever the size of the tensor
_MAX_AXES: Final = 6  # 720 layouts; no layer has weights of more axes
_N_PROBES: Final = 64
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class LazyArray:
    """A tensor that is read when it is needed.

    Attributes:
        shape: Its shape, known without reading it.
        dtype: Its numpy type.
        load: Reads it; called a few times.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], np.ndarray]

    @property
    def n_elements(self) -> int:
        """How many elements it has."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A tensor without its elements.

    Attributes:
        shape: Its shape.
        dtype: Its numpy type.
        multiset: The same for the same elements in any order.
        digest: The same for the same elements in the same order, whatever the shape.
        is_constant: All elements are the same (zeros, ones).
        largest: Largest absolute value; 0 for an empty tensor, infinite if any element is not finite.
    """

    shape: tuple[int, ...]
    dtype: str
    multiset: int
    digest: bytes
    is_constant: bool
    largest: float

    @property
    def n_elements(self) -> int:
        """How many elements it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def squeezed(self) -> tuple[int, ...]:
        """The sizes that are not 1, sorted: the same for every order of the axes."""
        return tuple(sorted(size for size in self.shape if size != 1))

    def same_bits(self, other: Fingerprint) -> bool:
        """Say whether both hold the same elements in the same order, shapes aside."""
        return self.dtype == other.dtype and self.digest == other.digest

    def same_elements(self, other: Fingerprint) -> bool:
        """Say whether both hold the same elements in some order."""
        return (self.dtype, self.n_elements, self.multiset) == (other.dtype, other.n_elements, other.multiset)


def fingerprint(array: np.ndarray) -> Fingerprint:
    """Read a tensor once.

    The multiset is the sum, modulo 2^64, of SplitMix64's finalizer of every element's bits.

    >>> a = np.arange(6.0).reshape(2, 3)
    >>> b = a.T.copy()
    >>> fingerprint(a).same_elements(fingerprint(b)), fingerprint(a).same_bits(fingerprint(b))
    (True, False)
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    digest = hashlib.blake2b(digest_size=16)
    total = 0
    for start in range(0, flat.size, _CHUNK):
        bits = _bits(flat[start : start + _CHUNK])
        digest.update(bits.tobytes())
        total += int(_mix(bits).sum(dtype=np.uint64))
    bits = _bits(flat)
    constant = bool(bits.size) and bool((bits == bits[0]).all())
    return Fingerprint(
        tuple(array.shape), str(array.dtype), total % 2**64, digest.digest(), constant, _largest(flat)
    )


def _bits(flat: np.ndarray) -> np.ndarray:
    return flat.view(np.dtype(f"u{flat.dtype.itemsize}"))


def _mix(bits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        word = bits.astype(np.uint64) + _GOLDEN
        word = (word ^ (word >> np.uint64(30))) * _MIX_1
        word = (word ^ (word >> np.uint64(27))) * _MIX_2
    mixed: np.ndarray = word ^ (word >> np.uint64(31))
    return mixed


def _largest(flat: np.ndarray) -> float:
    largest = 0.0
    for start in range(0, flat.size, _CHUNK):
        part = np.abs(flat[start : start + _CHUNK].astype(np.float64))
        top = float(part.max())
        largest = max(largest, top if np.isfinite(top) else np.inf)
    return largest


def layouts(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every order of the axes, as flat arrays: the stored one first.

    Axes of size 1 do not count, so that a 1x1 convolution is found again as a matrix.
    """
    squeezed = array.reshape([size for size in array.shape if size != 1])
    yield "reshaped", squeezed.reshape(-1)
    if not 1 < squeezed.ndim <= _MAX_AXES:
        return
    for order in permutations(range(squeezed.ndim)):
        if order != tuple(range(squeezed.ndim)):
            yield "transposed", squeezed.transpose(order)


def same_layout(expected: np.ndarray, found: np.ndarray) -> str | None:
    """Return how ``found`` holds ``expected``'s elements; ``None`` if in no order of either's axes.

    Returns:
        ``bit-equal``, ``reshaped`` or ``transposed`` (axes permuted, and perhaps merged).
    """
    if expected.shape == found.shape and _equal_bits(expected, found.reshape(-1)):
        return "bit-equal"
    for one, two in ((expected, found), (found, expected)):
        flat = np.ascontiguousarray(two).reshape(-1)
        for name, candidate in layouts(np.ascontiguousarray(one)):
            if _equal_bits(candidate, flat):
                return name
    return None


def _equal_bits(array: np.ndarray, flat: np.ndarray) -> bool:
    if array.dtype != flat.dtype or array.size != flat.size:
        return False
    # most orders are told apart by a few elements, without copying the tensor
    places = np.arange(min(_N_PROBES, flat.size)) * max(flat.size // _N_PROBES, 1) % max(flat.size, 1)
    few = (
        np.ascontiguousarray(array[np.unravel_index(places, array.shape)])
        if array.ndim
        else array.reshape(-1)
    )
    if array.ndim and not np.array_equal(_bits(few), _bits(flat[places])):
        return False
    return bool(
        np.array_equal(_bits(np.ascontiguousarray(array).reshape(-1)), _bits(np.ascontiguousarray(flat)))
    )
