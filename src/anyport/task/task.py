"""What every task offers, and how one is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from msgspec import inspect

from anyport.bundle.strictjson import find_unknown_key
from anyport.errors import UsageError
from anyport.runtime import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.task.memory_policy import MemoryPlan

_T = TypeVar("_T", bound=msgspec.Struct)

Progress = Callable[[str, int, int], None]  # what is counted, how many are done, how many there are


def silent(_what: str, _n_done: int, _n_all: int) -> None:
    """Show no progress."""


def untold(_plan: MemoryPlan) -> None:
    """Say nothing of how parts are opened."""


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How a task is opened.

    Attributes:
        variant: The variant of the bundle; ``None`` is the bundle's own choice.
        runtime: One of `anyport.runtime.RUNTIMES`.
        session: How its graphs are opened.
        progress: Called while many inputs are read and computed, as in ``progress("captions", 8, 100)``.
        max_memory_bytes: What onnxruntime may take of its own for the whole task, all parts together:
            `anyport.task.memory_policy` chooses how they are opened, and says what counts.
        memory_told: Told how the parts are opened under such a limit, before they are; and again where
            computing needed more than that left.
    """

    variant: str | None = None
    runtime: str = "onnxruntime"
    session: SessionOptions = field(default_factory=SessionOptions)
    progress: Progress = silent
    max_memory_bytes: int | None = None
    memory_told: Callable[[MemoryPlan], None] = untold

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing."""
        if self.max_memory_bytes is None:
            return
        if self.max_memory_bytes < 1:
            raise UsageError(f"the memory limit is {self.max_memory_bytes} bytes, it must be 1 or more")
        if self.session.memory_limit_bytes is not None:
            raise UsageError(
                "there are two memory limits: one for the whole task, one for a session",
                do="leave SessionOptions(memory_limit_bytes) out: it bounds graphs opened without a task",
            )


@dataclass(frozen=True, slots=True)
class Printout:
    """What a command line shows: lines for people, and the same for programs.

    Attributes:
        lines: Without line ends.
        record: What ``--json`` prints: dicts, lists, strings and numbers.
        notes: What a person should know of the answers; it is no part of them.
    """

    lines: tuple[str, ...]
    record: dict[str, Any]
    notes: tuple[str, ...] = ()


class Task(Protocol):
    """A program over a bundle's sessions; for Python it has a method of its own, such as ``classify``."""

    def answer(self, words: Sequence[str], options: Mapping[str, Any]) -> Printout:
        """Do what the words of a command line ask for.

        Args:
            words: The inputs, such as the names of files.
            options: The task's own options by name; those left out have their defaults.

        Raises:
            InputError: An input does not fit. Nothing was computed.
            UsageError: An option does not exist or has an impossible value.
        """

    def close(self) -> None:
        """Give back the sessions and the bundle; a second call does nothing."""


def settings_from(tree: Mapping[str, Any], kind: type[_T], what: str) -> _T:
    """Read settings or options strictly.

    Args:
        tree: As TOML, JSON or a command line gives them.
        kind: The struct that describes them.
        what: What messages call them.

    Raises:
        UsageError: A key is unknown (with the nearest known one), is missing, or has an impossible value.
    """
    unknown = find_unknown_key(dict(tree), inspect.type_info(kind), "")
    if unknown is not None:
        raise UsageError(f"{what}: {unknown.removeprefix('an ')}")
    try:
        return msgspec.convert(dict(tree), kind, strict=True)
    except msgspec.ValidationError as err:
        raise UsageError(f"{what}: {_in_words(str(err))}") from err


def _in_words(message: str) -> str:
    """Turn ``Expected `int`, got `str` - at `$.top``` into ``'top': expected int, got str``."""
    reason, _, place = message.partition(" - at ")
    reason = reason.replace("Object ", "").replace("`", "'")
    place = place.strip("`").removeprefix("$").removeprefix(".")
    return f"'{place}': {reason[:1].lower()}{reason[1:]}" if place else reason
