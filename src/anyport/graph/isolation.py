"""Running a program that may crash, hang, or eat all memory, and saying in one line how it ended.

Whoever waits for the program may be killed meanwhile: then the program is killed too (on Linux), and where
the system cannot do that, its CPU time has an end.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyport.bundle.disk import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAUNCHER: Final = Path(__file__).with_name("limited.py")
_POLL_S: Final = 0.02
_MAX_MESSAGES_BYTES: Final = 64 << 20  # of messages, before the program counts as run wild
_MOST_CPU_S: Final = 1 << 30
_TAIL_BYTES: Final = 8 << 10
_MAX_REASON_CHARS: Final = 200
_NO_MEMORY = re.compile(
    r"MemoryError|bad_alloc|[Mm]emory allocation|[Cc]annot allocate memory|[Uu]nable to allocate|"
    r"[Oo]ut of memory|failed to map segment|can't start new thread"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take.

    Attributes:
        memory_bytes: Of memory that it writes to; enforced on Linux.
        timeout_s: Of wall time.
    """

    memory_bytes: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended.

    Attributes:
        problem: One line; empty if it ended with exit code 0.
        wall_s: How long it ran.
    """

    problem: str
    wall_s: float


def run_limited(program: Path, words: Sequence[str], limits: Limits, folder: Path) -> Ending:
    """Run a Python program under limits, and end every process that it leaves behind.

    Args:
        program: A Python file.
        words: Its arguments.
        limits: What it may take.
        folder: Its working folder; its messages are kept there while it runs.
    """
    bounds = (limits.memory_bytes, _cpu_s(limits), os.getpid())
    command = [sys.executable, "-P", str(_LAUNCHER), *map(str, bounds), str(program), *words]
    log = folder / "messages.txt"
    started_s = time.monotonic()
    with log.open("wb") as messages:
        process = subprocess.Popen(  # noqa: S603 -- our own interpreter and a file of this package
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            cwd=folder,
            start_new_session=True,
        )
        try:
            stopped = _wait(process, log, started_s + limits.timeout_s)
        finally:
            _end_all(process)
    wall_s = time.monotonic() - started_s
    if stopped == "time":
        return Ending(f"stopped: not ready after {limits.timeout_s:g} s", wall_s)
    if stopped == "messages":
        return Ending(f"stopped: it wrote more than {size_text(_MAX_MESSAGES_BYTES)} of messages", wall_s)
    # the names of folders that are gone a moment later would only be long
    said = _tail(log).replace(str(folder), "…").replace(str(folder.parent), "…")
    return Ending(_problem(process.returncode, said, limits), wall_s)


def _cpu_s(limits: Limits) -> int:
    """Return more CPU time than a program can take in its wall time: for when nobody reads the clock."""
    return 1 + math.ceil(min(limits.timeout_s * (os.cpu_count() or 1), _MOST_CPU_S))


def _wait(process: subprocess.Popen[bytes], log: Path, deadline_s: float) -> str:
    """Wait for the end; return why it must be brought about: ``time``, ``messages``, or empty."""
    while True:
        try:
            process.wait(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline_s:
                return "time"
            if log.stat().st_size > _MAX_MESSAGES_BYTES:
                return "messages"
        else:
            return ""


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """Kill the program and what it started: they share a process group of their own."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # all have ended; macOS says so by the latter
            process.kill()
    else:
        process.kill()
    process.wait()


def _problem(code: int, said: str, limits: Limits) -> str:
    if code == 0:
        return ""
    if _NO_MEMORY.search(said):
        return f"ran out of memory: the limit is {size_text(limits.memory_bytes)}"
    last = next((line for line in reversed(said.splitlines()) if _says_something(line)), "")
    if code < 0:
        name = signal.Signals(-code).name if -code in {int(s) for s in signal.Signals} else f"signal {-code}"
        return f"crashed: {name}" + (", which the system sends when memory is short" if code == -9 else "")  # noqa: PLR2004
    return f"ended with exit code {code}" + (f": {last[:_MAX_REASON_CHARS]}" if last else "")


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(" ")


def _tail(log: Path) -> str:
    """Return the end of the messages as printable text; the start of a traceback says little."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)
