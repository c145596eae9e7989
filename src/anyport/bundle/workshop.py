"""The hidden place beside an output where it is made, so that nobody ever sees half of it.

``.NAME.building-<16 hex digits>/`` holds ``new`` (what is being made), ``old`` (what it replaces, for the
moment between two renames) and ``lock``. The lock dies with its process: a place whose lock can be had is
left over from a dead build, and the next build of the same output clears it away.

A build that can be gone on with keeps in ``done`` what is whole in ``new``, each thing in a folder that gets
its name last; one that is called ``half.…`` is not whole. The next such build takes the place over.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyport.bundle.disk import disk_errors
from anyport.bundle.locking import try_lock
from anyport.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

_LOCK_FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_N_TRIES: Final = 10
HALF: Final = "half."  # how the name of what is not done begins


@dataclass(frozen=True, slots=True)
class Workshop:
    """A place that this process has locked; see `open_workshop`.

    Attributes:
        output: What is to be made.
        folder: The hidden folder.
        lock: The descriptor that holds the lock.
        is_inherited: A dead build made it, and has left there what it had done.
    """

    output: Path
    folder: Path
    lock: int
    is_inherited: bool = False

    @property
    def new(self) -> Path:
        """Where the output is made."""
        return self.folder / "new"

    @property
    def old(self) -> Path:
        """Where the output that is replaced waits."""
        return self.folder / "old"

    @property
    def done(self) -> Path:
        """Where it is said what of ``new`` is whole."""
        return self.folder / "done"

    def leave(self) -> None:
        """Put back what was taken away without being replaced, and leave the rest to the next build."""
        try:
            _put_back(self.folder, self.output)
        finally:
            os.close(self.lock)

    def close(self) -> None:
        """Put back what was taken away without being replaced, remove the rest, and unlock."""
        try:
            _put_back(self.folder, self.output)
            shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            os.close(self.lock)
        if self.folder.exists():  # Windows removes no open file, so the lock was left
            shutil.rmtree(self.folder, ignore_errors=True)


def open_workshop(output: Path, *, resume: bool = False) -> Workshop:
    """Make and lock a hidden folder beside ``output``, and clear away those of dead builds.

    Args:
        output: What is to be made.
        resume: Take over the folder of a dead build that has done something.

    Raises:
        BundleError: The folder of the output cannot be written.
    """
    inherited = sweep(output, resume=resume)
    if inherited is not None:
        return inherited
    for _ in range(_N_TRIES):
        folder = output.with_name(f".{output.name}.building-{secrets.token_hex(8)}")
        with disk_errors("write", output):
            folder.mkdir(mode=0o700)
        lock = _lock(folder, if_unsupported=True)
        if lock is not None:
            return Workshop(output, folder, lock)
    raise BundleError(
        f"cannot write '{output.name}': other builds keep clearing its place", where=str(output)
    )


def sweep(output: Path, *, resume: bool = False) -> Workshop | None:
    """Clear away what dead builds of ``output`` left; what a living one uses is locked, and stays.

    Returns:
        With ``resume``: of those that have done something the one that has done most, and it stays.
    """
    best: Workshop | None = None
    for folder in leftovers(output):
        lock = _lock(folder, if_unsupported=False)
        if lock is None:
            continue
        dead: Workshop | None = Workshop(output, folder, lock, is_inherited=True)
        if resume and n_done(folder) > (0 if best is None else n_done(best.folder)):
            best, dead = dead, best
        if dead is not None:
            dead.close()
    if best is not None:
        _put_back(best.folder, output)
        shutil.rmtree(best.old, ignore_errors=True)  # the output is there: it was replaced
    return best


def n_done(folder: Path) -> int:
    """Return how many things are whole in a hidden folder."""
    try:
        with os.scandir(folder / "done") as found:
            return sum(not entry.name.startswith(HALF) for entry in found)
    except OSError:
        return 0


def leftovers(output: Path) -> list[Path]:
    """Return the hidden folders of builds of ``output``, dead or alive."""
    pattern = re.compile(re.escape(f".{output.name}.building-") + "[0-9a-f]{16}")
    try:
        with os.scandir(output.parent) as found:
            names = [e.name for e in found if pattern.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    except OSError:
        return []  # the build itself will say that it cannot write there
    return [output.with_name(name) for name in sorted(names)]


def _lock(folder: Path, *, if_unsupported: bool) -> int | None:
    """Lock a folder; ``None`` if another process has it or has just cleared it away."""
    path = folder / "lock"
    try:
        lock = os.open(path, _LOCK_FLAGS, 0o600)
    except OSError:
        return None
    if try_lock(lock, if_unsupported=if_unsupported):
        with suppress(OSError):
            if os.path.samestat(os.fstat(lock), path.lstat()):
                return lock
    os.close(lock)
    return None


def _put_back(folder: Path, output: Path) -> None:
    old = folder / "old"
    if os.path.lexists(old) and not os.path.lexists(output):
        old.rename(output)
