"""The first thing in a process that may misbehave: limits, then the program.

``python -P limited.py MEMORY_BYTES CPU_S PARENT PROGRAM.py WORD…``; it imports nothing but the standard
library, so that whatever the program imports is under the limits already. It is a file and no module of the
package because its folder must not be on the path: a file called ``inspect.py`` lies there.
"""

from __future__ import annotations

import faulthandler
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(parent: int) -> None:
    """Let this process be killed when its parent ends, however it ends; only Linux can."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before it could be waited for
        os.kill(os.getpid(), signal.SIGKILL)


def set_limits(memory_bytes: int, cpu_s: int) -> None:
    """Bound the memory and the CPU time of this process, and let it leave no core file.

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
    _, most_s = resource.getrlimit(resource.RLIMIT_CPU)  # only root may ask for more
    cpu_s = cpu_s if most_s == resource.RLIM_INFINITY else min(cpu_s, most_s)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))


def main(words: list[str]) -> None:
    """Set the limits and become the program."""
    memory_bytes, cpu_s, parent, program, *rest = words
    die_with(int(parent))
    set_limits(int(memory_bytes), int(cpu_s))
    faulthandler.enable()  # a segmentation fault says in which function it was
    sys.argv = [program, *rest]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
