"""Arrays kept in a narrower type, where that is as good a sample; and given back in their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyport.tensors import TensorSpec

_INTEGERS: Final = ("uint8", "int8", "int16", "int32")  # narrowest first
_MOST_HALF: Final = 6.0e4  # float16 ends at 65504
_MOST_NOISE: Final = 2.0**-9  # rounding at 54 dB below the array's own variation: no metric sees it


def narrow(array: np.ndarray) -> np.ndarray:
    """Return the array in a type that takes less room.

    Whole numbers keep their values. A float32 array becomes float16 where the rounding is small against the
    variation within the array; a float32 array of equal values stays what it is.

    >>> narrow(np.int64([0, 30521])).dtype, narrow(np.float32([0.1, 0.9])).dtype
    (dtype('int16'), dtype('float16'))
    """
    if array.dtype.kind == "i" and array.size:
        low, high = int(array.min()), int(array.max())
        for name in _INTEGERS:
            limits = np.iinfo(name)
            if np.dtype(name).itemsize < array.dtype.itemsize and limits.min <= low and high <= limits.max:
                return array.astype(name)
    if array.dtype == np.float32 and _is_half(array):
        return array.astype(np.float16)
    return array


def _is_half(array: np.ndarray) -> bool:
    finite = array[np.isfinite(array)].astype(np.float64)
    if finite.size == 0 or np.max(np.abs(finite)) > _MOST_HALF:
        return False
    noise = finite.astype(np.float16).astype(np.float64) - finite
    return bool(np.sqrt(np.mean(np.square(noise))) < _MOST_NOISE * np.std(finite))


class Widened(Mapping[str, np.ndarray]):
    """Arrays in the types that a graph takes and gives; each is made when it is asked for, and not kept.

    Args:
        stored: Key -> array as it is stored.
        keys: Tensor -> key.
        specs: The tensors.
    """

    def __init__(
        self, stored: Mapping[str, np.ndarray], keys: Mapping[str, str], specs: Iterable[TensorSpec]
    ) -> None:
        self._stored, self._keys = stored, keys
        self._dtypes = {spec.name: spec.dtype for spec in specs}

    def __getitem__(self, name: str) -> np.ndarray:
        """Return one array in its own type."""
        return self.stored(name).astype(self._dtypes[name], copy=False)

    def stored(self, name: str) -> np.ndarray:
        """Return one array as it is stored."""
        return self._stored[self._keys[name]]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the tensors."""
        return iter(self._keys)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._keys)
