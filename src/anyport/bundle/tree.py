"""What lies in a folder: regular files in folders that are not empty, and nothing else."""

from __future__ import annotations

import os
import stat
from itertools import islice
from typing import TYPE_CHECKING, Final

from anyport.bundle.disk import disk_errors, is_link
from anyport.bundle.paths import shown
from anyport.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_FILES: Final = 100_000


def walk_tree(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the relative path (with ``/``) and the size in bytes of every file below a folder.

    The caller may stop at the first file that it does not want, so a hostile folder costs little.

    Raises:
        BundleError: There is a link, an empty folder, or something that is neither file nor folder.
    """
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        entries = _entries(folder / prefix)
        if not entries and prefix:
            raise BundleError(f"the folder {shown(prefix[:-1])} is empty", where=str(folder))
        for name, status in entries:
            path = prefix + name
            if stat.S_ISDIR(status.st_mode) and not is_link(status):
                waiting.append(path + "/")
            else:
                yield path, _size_of_file(path, status, folder)


def _entries(folder: Path) -> list[tuple[str, os.stat_result]]:
    with disk_errors("read", folder), os.scandir(folder) as found:
        listed = [(entry.name, entry.stat(follow_symlinks=False)) for entry in islice(found, MAX_FILES + 1)]
    if len(listed) > MAX_FILES:
        raise BundleError(f"there are more than {MAX_FILES} files in one folder", where=str(folder))
    return sorted(listed)


def _size_of_file(path: str, status: os.stat_result, folder: Path) -> int:
    if is_link(status):
        raise BundleError(
            f"{shown(path)} is a link; a bundle holds only files and folders",
            where=str(folder),
            do="replace the link by a copy of what it points to, before the bundle is sealed",
        )
    if not stat.S_ISREG(status.st_mode):
        kind = stat.filemode(status.st_mode)[0]
        name = {"p": "a FIFO", "s": "a socket", "c": "a device", "b": "a device"}.get(kind, "no file")
        raise BundleError(
            f"{shown(path)} is {name}; a bundle holds only files and folders", where=str(folder)
        )
    return status.st_size
