"""The names that a bundle may hold: plain relative paths that mean the same on every system."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from anyport.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PATH_CHARS: Final = 240
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DEVICE = re.compile(r"(aux|con|nul|prn|(com|lpt)\d)(\..*)?", re.IGNORECASE)  # Windows opens devices by these
_SHOWN_CHARS: Final = 80


def shown(text: str) -> str:
    r"""Quote words that someone else wrote: short, and without control characters.

    >>> print(shown("a" + chr(27) + "[2J"))
    'a\x1b[2J'
    """
    return repr(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…")


def check_path(path: str, where: str | None = None) -> None:
    """Refuse every path that is not plainly below the bundle.

    Raises:
        BundleError: It is absolute, climbs, or is not spelled alike on every system.
    """
    reason = _fault(path)
    if reason is not None:
        raise BundleError(f"the path {shown(path)} is refused: {reason}", where=where)


def _fault(path: str) -> str | None:
    if not path:
        return "it is empty"
    if len(path) > MAX_PATH_CHARS:
        return f"it has {len(path)} characters, at most {MAX_PATH_CHARS} are allowed"
    if path.startswith("/"):
        return "it is absolute"
    return next((fault for segment in path.split("/") if (fault := _segment_fault(segment))), None)


def _segment_fault(segment: str) -> str | None:
    if segment in {"", ".", ".."}:
        return f"it has {shown(segment)} as one of its names"
    if not _SEGMENT.fullmatch(segment):
        return f"the name {shown(segment)} is not made of at most 100 letters, digits, '_', '.', '+', '-'"
    if segment.endswith("."):
        return f"the name {shown(segment)} ends with '.', which Windows drops"
    if _DEVICE.fullmatch(segment):
        return f"the name {shown(segment)} is a device on Windows"
    return None


def check_paths(paths: Iterable[str], where: str | None = None) -> None:
    """Refuse paths that cannot lie in one folder on every system.

    Raises:
        BundleError: A path is refused by `check_path`, comes twice, is both file and folder, or
            differs from another one in upper and lower case only.
    """
    spellings: dict[str, str] = {}
    files: set[str] = set()
    for path in paths:
        check_path(path, where)
        if path in files:
            raise BundleError(f"the path {shown(path)} is listed twice", where=where)
        files.add(path)
        _check_spelling(path, spellings, where)
    for path in files:
        inside = next((parent for parent in parents(path) if parent in files), None)
        if inside is not None:
            raise BundleError(f"the path {shown(inside)} is a file and a folder", where=where)


def _check_spelling(path: str, spellings: dict[str, str], where: str | None) -> None:
    for name in (*parents(path), path):
        known = spellings.setdefault(name.lower(), name)
        if known != name:
            raise BundleError(
                f"the paths {shown(known)} and {shown(name)} differ in upper and lower case only",
                where=where,
            )


def parents(path: str) -> list[str]:
    """Return the folders that a path lies in, the outermost first.

    >>> parents("parts/network/fp32/model.onnx")
    ['parts', 'parts/network', 'parts/network/fp32']
    """
    names = path.split("/")
    return ["/".join(names[:n]) for n in range(1, len(names))]


def check_names(kind: str, names: Iterable[str], where: str | None = None) -> None:
    """Refuse names of parts or variants that cannot be the names of folders.

    Raises:
        BundleError: A name has other characters, or two differ in upper and lower case only.
    """
    spellings: dict[str, str] = {}
    for name in names:
        if not _NAME.fullmatch(name) or _segment_fault(name):
            raise BundleError(
                f"{shown(name)} is no name for a {kind}",
                where=where,
                do="use 1 to 64 letters, digits, '_', '-' and '.', starting with a letter or digit",
            )
        _check_spelling(name, spellings, where)
