"""The memory that this machine has left."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/proc/meminfo")


def free_memory_bytes(*, with_swap: bool = False) -> int | None:
    """Return what the system could give to a process; ``None`` where it does not say.

    Args:
        with_swap: Count what would be slow, too.
    """
    try:
        text = _MEMORY.read_text(encoding="ascii")
    except OSError:
        return None
    found = dict(re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE))
    if "MemAvailable" not in found:
        return None
    names = ("MemAvailable", *["SwapFree"] * with_swap)
    return sum(int(found.get(name, 0)) for name in names) * 1024
