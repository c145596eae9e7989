"""The first thing in a process that may misbehave: limits, then the program.

``python -P limited.py MEMORY_BYTES PROGRAM.py WORD…``; it imports nothing but the standard library, so that
whatever the program imports is under the limits already. It is a file and no module of the package because
its folder must not be on the path: a file called ``inspect.py`` lies there.
"""

from __future__ import annotations

import faulthandler
import runpy
import sys


def set_limits(memory_bytes: int) -> None:
    """Bound the memory of this process, and let it leave no core file.

    The limit counts what the process writes to (``RLIMIT_DATA``), not the files and libraries that it maps:
    the address space of an interpreter with its libraries says little about its memory. Where the system has
    no such limits, there is none.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(words: list[str]) -> None:
    """Set the limits and become the program."""
    memory_bytes, program, *rest = words
    set_limits(int(memory_bytes))
    faulthandler.enable()  # a segmentation fault says in which function it was
    sys.argv = [program, *rest]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
