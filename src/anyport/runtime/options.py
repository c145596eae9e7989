"""How a graph is opened: the provider, the threads, the memory, the optimization."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 -- a dataclass field
from typing import Final, Literal

from anyport.errors import UsageError, did_you_mean

Optimization = Literal["all", "basic", "extended", "none"]
Weights = Literal["copied", "mapped"]

_MAX_THREADS_PER_CORE: Final = 8  # a thousand threads take minutes to start

_UNITS: Final = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SHOWN_UNITS: Final = ("GB", "GiB", "KB", "KiB", "MB", "MiB")
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$")


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a graph is opened on a runtime; ``None`` leaves the choice to the runtime.

    Attributes:
        provider: The execution provider, such as ``cpu`` or ``cuda``. The session is asserted to have it.
        n_threads: How many threads one operator may use; all cores by default.
        memory_limit_bytes: A limit for what the session takes of its own: weights that are no pages of a
            file, and everything computed. `anyport.runtime.onnxrt` says exactly what it bounds.
        weights: ``copied`` into memory and packed for the processor, or ``mapped``: left in their file, whose
            pages the system may drop and read again. By default mapped under a memory limit, else copied.
        optimization: What the runtime may rewrite while it opens the graph; by default what the bundle was
            proven with, and ``all`` for a plain file.
        libraries: Shared libraries with operators of other domains than ONNX's, which are loaded into this
            process and run as its own code. Only the user names them: a bundle only says what is missing.
        weights_folder: Where the checkpoint is that a graph refers to, which was built with
            ``--weights reference``; other graphs do without.
        whole_digest: Read every byte of such a checkpoint before it is used, which takes minutes.
    """

    provider: str = "cpu"
    n_threads: int | None = None
    memory_limit_bytes: int | None = None
    weights: Weights | None = None
    optimization: Optimization | None = None
    libraries: tuple[Path, ...] = ()
    weights_folder: Path | None = None
    whole_digest: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.n_threads is not None and self.n_threads < 1:
            raise UsageError(f"n_threads is {self.n_threads}, it must be 1 or more")
        most = _MAX_THREADS_PER_CORE * (os.cpu_count() or 1)
        if self.n_threads is not None and self.n_threads > most:
            raise UsageError(
                f"n_threads is {self.n_threads}, this machine has {os.cpu_count()} cores",
                do=f"give {most} or fewer; more than one thread a core is seldom faster",
            )
        if self.memory_limit_bytes is not None and self.memory_limit_bytes < 1:
            raise UsageError(f"the memory limit is {self.memory_limit_bytes} bytes, it must be 1 or more")


def size_from_text(text: str) -> int:
    """Read a number of bytes.

    >>> size_from_text("512MB"), size_from_text("1.5 GiB")
    (512000000, 1610612736)

    Raises:
        UsageError: It is no number with a unit.
    """
    found = _SIZE.match(text)
    if found is None:
        raise UsageError(f"'{text}' is no size", do="write it as 512MB, 2GB or 1.5GiB")
    number, unit = found.groups()
    if unit.upper() not in _UNITS:
        raise UsageError(f"'{unit}' in '{text}' is no unit{did_you_mean(unit, _SHOWN_UNITS)}")
    return int(float(number) * _UNITS[unit.upper()])
