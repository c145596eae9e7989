"""Arrays that are not computed twice."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import numpy as np

MAX_BYTES: Final = 512 << 20  # the states of 300 pictures in a base BLIP


class Remembered:
    """Arrays by key; those unused for longest go first. It may be used from several threads.

    Attributes:
        size_bytes: What the arrays take.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many arrays are kept."""
        return len(self._arrays)

    def find(
        self, keys: Sequence[Hashable], make: Callable[[list[int]], Sequence[np.ndarray]]
    ) -> list[np.ndarray]:
        """Return one array for each key.

        Args:
            keys: What stands for each array; equal keys stand for equal arrays.
            make: Computes those at these places of ``keys``; each key is asked for once.
        """
        with self._lock:
            found = {key: self._arrays[key] for key in keys if key in self._arrays}
            for key in found:
                self._arrays.move_to_end(key)
        first_places = {key: place for place, key in reversed(list(enumerate(keys))) if key not in found}
        missing = sorted(first_places.values())
        if missing:
            made = dict(zip((keys[place] for place in missing), make(missing), strict=True))
            found |= made
            self._keep(made)
        return [found[key] for key in keys]

    def forget(self) -> None:
        """Give back the memory."""
        with self._lock:
            self._arrays.clear()
            self.size_bytes = 0

    def _keep(self, made: dict[Hashable, np.ndarray]) -> None:
        with self._lock:
            for key, array in made.items():
                if key not in self._arrays and array.nbytes <= self._max_bytes:
                    self._arrays[key] = array
                    self.size_bytes += array.nbytes
            while self.size_bytes > self._max_bytes:
                self.size_bytes -= self._arrays.popitem(last=False)[1].nbytes
