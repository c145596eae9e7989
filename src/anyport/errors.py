"""The errors that anyport raises.

::

    AnyportError
    ├── UsageError            wrong words: an option, a setting, a key, a notation      (exit code 2)
    │   └── MissingExtraError a package that this step needs is not installed          (exit code 2)
    ├── SourceError           the PyTorch model cannot be found, loaded or run         (exit code 2)
    ├── ExportError           the model cannot become the graph that was asked for     (exit code 1)
    │   ├── AxisError         a dynamic axis was lost on the way
    │   └── RefusedModelError training mode, random operators, a branch chosen silently
    ├── BundleError           not a bundle, damaged, hostile, or newer than this anyport (exit code 1)
    ├── InputError            the tensors or pictures given at run time do not fit     (exit code 2)
    ├── SessionError          the runtime cannot open the graph as asked               (exit code 1)
    │   └── MemoryLimitError  it needs more memory than it may take                    (exit code 1)
    ├── CheckpointError       the weights given are not those that the graph takes     (exit code 1)
    ├── CancelledError        the caller asked to stop                                 (exit code 1)
    ├── CompressError         a smaller graph would not be smaller, faster, or good    (exit code 1)
    └── MismatchError         a comparison failed or proves nothing                    (exit code 1)

Every message says what is wrong (with numbers), where, and what to do. The first line stands alone.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType


class AnyportError(Exception):
    """What went wrong, where, and what to do about it.

    Args:
        what: One line that stands alone, with the numbers.
        where: The part, file, case or line it was found at.
        do: The command or the change that helps.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, where: str | None = None, do: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.do = do

    def __str__(self) -> str:
        """Return the lines as they are printed to a user."""
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.do is not None:
            lines.append(f"  do:    {self.do}")
        return "\n".join(lines)


class UsageError(AnyportError):
    """An option, a setting, a key or a notation that anyport does not understand."""


class MissingExtraError(UsageError):
    """A package that this step needs is not installed."""

    def __init__(self, package: str, *, extra: str, step: str) -> None:
        super().__init__(
            f"{step} needs the package '{package}', which is not installed",
            do=f"pip install 'anyport[{extra}]'",
        )
        self.package = package
        self.extra = extra


class SourceError(AnyportError):
    """The PyTorch model cannot be found, loaded or run."""


class ExportError(AnyportError):
    """The model cannot become the graph that was asked for."""

    exit_code = 1


class AxisError(ExportError):
    """A dynamic axis that was asked for is not dynamic in the graph, or the reverse."""


class RefusedModelError(ExportError):
    """The model would export, and the graph would be wrong."""


class BundleError(AnyportError):
    """Not a bundle, damaged, hostile, or newer than this anyport."""

    exit_code = 1


class InputError(AnyportError):
    """The tensors or pictures given at run time do not fit the model."""


class SessionError(AnyportError):
    """The runtime cannot open the graph in the way that was asked for."""

    exit_code = 1


class MemoryLimitError(SessionError):
    """The weights or the computing of a graph need more memory than was allowed."""


class CancelledError(AnyportError):
    """What was begun was stopped, because the caller asked for it."""

    exit_code = 1


class CompressError(AnyportError):
    """A compressed graph is not what was asked for: not smaller, not faster, or not good enough."""

    exit_code = 1


class CheckpointError(AnyportError):
    """A file of weights is not one of this model, or not one that the graph can take."""

    exit_code = 1


class MismatchError(AnyportError):
    """A comparison failed, or it proves nothing."""

    exit_code = 1


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest known word, or the list of known words.

    >>> did_you_mean("lables", ["labels", "mean"])
    " (did you mean 'labels'?)"
    >>> did_you_mean("q", ["labels", "mean"])
    " (known: 'labels', 'mean')"
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f" (did you mean '{near[0]}'?)"
    listed = ", ".join(f"'{name}'" for name in names)
    return f" (known: {listed})" if listed else " (none is known here)"


def require(package: str, *, extra: str, step: str) -> ModuleType:
    """Import a package that only an extra installs.

    >>> require("json", extra="none", step="this example").__name__
    'json'

    Args:
        package: The name it is imported by.
        extra: The extra of anyport that installs it.
        step: What needs it; the message begins with it.

    Raises:
        MissingExtraError: The package is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as err:
        if err.name is None or err.name.partition(".")[0] != package.partition(".")[0]:
            raise  # the package is there, and broken
        raise MissingExtraError(package, extra=extra, step=step) from err
