"""How much memory a block of code needed of its own: heap and stacks, no pages of files (mapped weights)."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Final, Self

_STATUS: Final = Path("/proc/self/status")
_EVERY_S: Final = 0.01  # reading takes 0.03 ms


def own_memory() -> int | None:
    """Return how many bytes this process has that no file backs; ``None`` where the system does not say."""
    try:
        found = re.search(r"^RssAnon:\s*(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        found = None
    return None if found is None else int(found[1]) * 1024


def give_back() -> None:
    """Let the C library give to the system what was freed.

    glibc keeps what was freed in pieces for the next request: of 186 MB of a closed session 58 to 145 MB.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class PeakMemory:
    """The most memory of its own that this process has inside a block; a thread looks every 10 ms.

    What is there for a shorter time may be missed. All counts that the process does meanwhile: Python,
    pictures and arrays, copied weights, computing.

    Example::

        with PeakMemory() as peak:
            task.edit(["shirt.png"], "a black shirt")
        print(peak.above_bytes)
    """

    def __init__(self) -> None:
        give_back()  # else what is needed would come out of what was freed before, unseen
        self._before = self._most = own_memory()
        self._stop = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        if self._most is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look for the last time."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def above_bytes(self) -> int | None:
        """The most so far above what there was at the beginning; ``None`` where the system does not say."""
        return None if self._most is None or self._before is None else self._most - self._before

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._look()
        self._look()

    def _look(self) -> None:
        self._most = max(self._most or 0, own_memory() or 0)
