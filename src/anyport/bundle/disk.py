"""Reading, digesting and syncing files, with disk errors in plain words."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from anyport.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

BLOCK_BYTES: Final = 1 << 20
DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# a FIFO in the place of a file must not block, a link must not be followed
_READ_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_KILO: Final = 1000


def size_text(n_bytes: float) -> str:
    """Write a number of bytes for people.

    >>> size_text(812_000)
    '812.0 kB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < _KILO:
            return f"{n_bytes:.1f} {unit}" if unit != "bytes" else f"{int(n_bytes)} bytes"
        n_bytes /= _KILO
    return f"{n_bytes:.1f} TB"


@contextmanager
def disk_errors(action: str, path: Path, size_bytes: int | None = None) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a `BundleError`.

    Args:
        action: ``read``, ``write`` …, for the message.
        path: What is read or written.
        size_bytes: How much is to be written, where it is known.
    """
    try:
        yield
    except OSError as err:
        raise disk_error(err, action, path, size_bytes) from err


def disk_error(err: OSError, action: str, path: Path, size_bytes: int | None = None) -> BundleError:
    """Return the `BundleError` for an ``OSError``: what, how much, where."""
    amount = "" if size_bytes is None else f" ({size_text(size_bytes)})"
    if err.errno not in DISK_FULL:
        reason = err.strerror or str(err)
        return BundleError(f"cannot {action} '{path.name}'{amount}: {reason}", where=str(path))
    is_limit = err.errno == errno.EFBIG
    reason = "the limit on the size of a file is reached" if is_limit else "the disk is full"
    return BundleError(
        f"cannot {action} '{path.name}'{amount}: {reason}",
        where=f"{path}{_free_text(path)}",
        do="raise the limit (ulimit -f)" if is_limit else "free some space, or write to another disk",
    )


def _free_text(path: Path) -> str:
    try:
        return f", {size_text(shutil.disk_usage(path.parent).free)} free"
    except OSError:
        return ""


def is_link(status: os.stat_result) -> bool:
    """Say whether ``lstat`` saw a symbolic link, or a junction of Windows."""
    junction = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
    return stat.S_ISLNK(status.st_mode) or (
        junction is not None and getattr(status, "st_reparse_tag", 0) == junction
    )


@contextmanager
def open_regular(path: Path) -> Iterator[FileIO]:
    """Open a file to read; no link is followed and nothing but a regular file is opened.

    Raises:
        BundleError: It is missing, a link, or no regular file.
    """
    with disk_errors("read", path):
        if is_link(path.lstat()):
            raise BundleError(f"'{path.name}' is a link", where=str(path))
        descriptor = os.open(path, _READ_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleError(f"'{path.name}' is no regular file", where=str(path))
    with os.fdopen(descriptor, "rb", buffering=0) as opened:
        yield opened


def read_capped(path: Path, limit_bytes: int) -> bytes:
    """Read a small file whole.

    Raises:
        BundleError: It is missing, no regular file, or larger than the limit.
    """
    with open_regular(path) as opened, disk_errors("read", path):
        size_bytes = os.fstat(opened.fileno()).st_size
        content = b"" if size_bytes > limit_bytes else _read_all(opened, limit_bytes + 1)
    if size_bytes > limit_bytes or len(content) > limit_bytes:
        raise BundleError(
            f"'{path.name}' has {max(size_bytes, len(content))} bytes, at most {limit_bytes} are read",
            where=str(path),
        )
    return content


def _read_all(opened: FileIO, limit_bytes: int) -> bytes:
    blocks = []
    while limit_bytes > 0 and (block := opened.read(min(BLOCK_BYTES, limit_bytes))):
        blocks.append(block)
        limit_bytes -= len(block)
    return b"".join(blocks)


def read_blocks(path: Path, size_bytes: int) -> Iterator[bytes]:
    """Yield a file in blocks of at most 1 MiB.

    Raises:
        BundleError: It does not have exactly ``size_bytes`` bytes.
    """
    with open_regular(path) as opened:
        n_read = 0
        while True:
            with disk_errors("read", path):
                block = opened.read(BLOCK_BYTES)
            n_read += len(block)
            if not block or n_read > size_bytes:
                break
            yield block
        if n_read != size_bytes:
            found = os.fstat(opened.fileno()).st_size
            raise BundleError(f"'{path.name}' has {found} bytes, {size_bytes} are sealed", where=str(path))


def digest_file(path: Path, size_bytes: int) -> str:
    """Return the SHA-256 of a file of exactly this size, as 64 hexadecimal digits; memory: 1 MiB."""
    digest = hashlib.sha256()
    for block in read_blocks(path, size_bytes):
        digest.update(block)
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    access = os.O_RDWR if os.name == "nt" else os.O_RDONLY  # Windows flushes only what may be written
    with disk_errors("write", path):
        descriptor = os.open(path, access)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows has no such call."""
    if os.name != "nt":
        sync_file(path)
