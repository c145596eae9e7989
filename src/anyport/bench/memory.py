"""How much memory a process needed at most, above what it had.

``getrusage`` will not do on Linux: its ``ru_maxrss`` survives ``exec``, so that a child of a large process
claims its parent's peak. ``/proc/self/status`` counts for the program that runs: ``VmHWM`` at most, ``VmRSS``
now. File-mapped weights count as soon as they are touched.
"""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyport.bench.blank import Blank
from anyport.task.memory_peak import give_back, own_memory

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"  # proc(5): "reset the peak resident set size (high water mark) to the current value"


@dataclass(frozen=True, slots=True)
class MemoryMark:
    """What a process had, and the most it had had until then; in bytes."""

    now_bytes: int
    peak_bytes: int


def mark_memory() -> MemoryMark | Blank:
    """Remember how much memory this process has; where possible, what it had before no longer counts.

    What glibc keeps of freed memory is given back first: what is needed next would come out of it, unseen.
    """
    give_back()
    if sys.platform == "darwin":
        peak_bytes = _darwin_peak()
        return MemoryMark(peak_bytes, peak_bytes)
    # where it cannot be reset the mark keeps the older peak; `peak_since` says when that hides the new one
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    try:
        return MemoryMark(*_linux_memory())
    except (OSError, ValueError):
        return Blank(f"peak memory is not read on {sys.platform}")


def anonymous_memory() -> int | Blank:
    """Return how many bytes this process has that no file backs: heap and stacks, no mapped weights.

    What glibc's allocator keeps of freed memory is given back first: new objects would fill it unseen.
    """
    give_back()
    found = own_memory()
    return Blank(f"anonymous memory is not read on {sys.platform}") if found is None else found


def peak_since(mark: MemoryMark | Blank) -> int | Blank:
    """Return the most memory that this process has had since the mark, above what it had there."""
    if isinstance(mark, Blank):
        return mark
    peak_bytes = _darwin_peak() if sys.platform == "darwin" else _linux_memory()[1]
    return above(mark, peak_bytes)


def above(mark: MemoryMark, peak_bytes: int) -> int | Blank:
    """Return the peak above the mark, unless an older peak hides it."""
    if peak_bytes <= mark.peak_bytes and mark.peak_bytes > mark.now_bytes:
        return Blank("the process had needed more memory before, for its imports")
    return max(0, peak_bytes - mark.now_bytes)


def _linux_memory() -> tuple[int, int]:
    """Return the resident memory now and at its peak, in bytes."""
    found = dict(
        re.findall(r"^(VmRSS|VmHWM):\s*(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    )
    if len(found) != len(("VmRSS", "VmHWM")):
        raise ValueError(f"{_STATUS} does not say how much memory the process has")
    return int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024


def _darwin_peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
