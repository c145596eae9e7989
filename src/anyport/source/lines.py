"""Where in the user's code something is: file and line, with no path of this machine."""

from __future__ import annotations

import inspect
import re
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

_FRAME: Final = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_OURS: Final = str(Path(__file__).resolve().parents[1])


def where_is(module: nn.Module) -> str:
    """Return ``ClassName, file.py:12``: where the class of a module is written."""
    cls = type(module)
    try:
        path = inspect.getsourcefile(cls)
        line = inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return cls.__qualname__
    return f"{cls.__qualname__}, {short_path(path or '?')}:{line}"


def short_path(path: str) -> str:
    """Return a path relative to the package folder or the working folder it lies in.

    >>> short_path("/anywhere/site-packages/torch/nn/functional.py")
    'torch/nn/functional.py'
    """
    for marker in ("/site-packages/", "/dist-packages/"):
        if marker in path:
            return path.rsplit(marker, 1)[1]
    stdlib = sysconfig.get_paths()["stdlib"]
    if path.startswith(stdlib):
        return path[len(stdlib) + 1 :]
    top = Path(path).parent
    while (top / "__init__.py").exists():
        top = top.parent
    return Path(path).relative_to(top).as_posix()


def is_users(path: str) -> bool:
    """Say whether a source file belongs to the user rather than to torch, anyport or the like."""
    if path.startswith((_OURS, "<", sysconfig.get_paths()["stdlib"])):
        return False
    return not re.search(r"(^|/)(site-packages|dist-packages)/|^torch/", path)


def user_line(stack_trace: str) -> str | None:
    """Return ``file.py:12: code`` of the innermost frame in the user's code, from a stack trace's text.

    Falls back to the innermost frame of a package other than torch, then to ``None``.
    """
    lines = stack_trace.splitlines()
    frames = [(i, found.groups()) for i, text in enumerate(lines) if (found := _FRAME.search(text))]
    mine = [f for f in frames if is_users(f[1][0])]
    others = [
        f for f in frames if "/torch/" not in f[1][0] and not f[1][0].startswith(("torch/", _OURS, "<"))
    ]
    for place, (path, line, _) in reversed(mine or others):
        code = lines[place + 1].strip() if place + 1 < len(lines) else ""
        return f"{short_path(path)}:{line}" + (f": {code}" if code else "")
    return None


def user_line_of(error: BaseException) -> str | None:
    """Return ``file.py:12: code`` for the user's line that led to an error."""
    for link in reversed(list(_chain(error))):
        frames = traceback.extract_tb(link.__traceback__)
        for frame in reversed(frames):
            if is_users(frame.filename):
                return f"{short_path(frame.filename)}:{frame.lineno}: {frame.line or ''}".rstrip(": ")
        if (found := user_line(str(link))) is not None:
            return found
    return None


def innermost(error: BaseException) -> BaseException:
    """Return the error that all the others were raised from."""
    return list(_chain(error))[-1]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type if it has none."""
    lines: Sequence[str] = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
