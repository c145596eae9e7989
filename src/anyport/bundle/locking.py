"""One lock that dies with its process, on every system."""

from __future__ import annotations

import errno
import sys
from typing import Final

_BUSY: Final = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK, errno.EWOULDBLOCK})


def try_lock(descriptor: int, *, if_unsupported: bool) -> bool:
    """Lock an open file for this process, without waiting; closing the file unlocks it.

    Args:
        descriptor: An open file.
        if_unsupported: What to return where the file system knows no locks.
    """
    try:
        _lock(descriptor)
    except OSError as err:
        return False if err.errno in _BUSY else if_unsupported
    return True


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
