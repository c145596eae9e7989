"""Options that several verbs share, and plain tables."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from anyport.errors import AnyportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_F = TypeVar("_F", bound="Callable[..., Any]")
_T = TypeVar("_T")


def json_option(function: _F) -> _F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")(function)


def force_option(function: _F) -> _F:
    """Add ``--force``."""
    return click.option("--force", is_flag=True, help="Replace an existing output.")(function)


def library_option(function: _F) -> _F:
    """Add ``--library``."""
    return click.option(
        "--library",
        "libraries",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Shared library with operators that are not ONNX's; it is loaded and run.",
    )(function)


def weights_option(function: _F) -> _F:
    """Add ``--weights``."""
    return click.option(
        "--weights",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The checkpoint that a bundle refers to (--weights reference); this machine remembers it.",
    )(function)


def gathered(kind: Callable[..., _T]) -> Callable[[Callable[[_T], int | None]], Callable[..., int | None]]:
    """Give a verb its words as one dataclass; stands right above the function, below the options."""

    def decorate(verb: Callable[[_T], int | None]) -> Callable[..., int | None]:
        @wraps(verb)
        def called_by_click(**words: Any) -> int | None:  # noqa: ANN401 -- click's own types
            return verb(kind(**words))

        return called_by_click

    return decorate


class SizeType(click.ParamType[int]):
    """A number of bytes, such as ``512MB``."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        """Read it."""
        from anyport.runtime import size_from_text

        if isinstance(value, int):
            return value
        try:
            return size_from_text(value)
        except AnyportError as err:
            self.fail(err.what, param, ctx)


def table(rows: Iterable[Sequence[str]], indent: str = "  ") -> str:
    """Align columns, three spaces apart.

    >>> print(table([("a", "1"), ("long", "2")]))
      a      1
      long   2
    """
    lines = [list(row) for row in rows]
    n_columns = max((len(line) for line in lines), default=0)
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(n_columns)]
    return "\n".join(
        (indent + "   ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False))).rstrip()
        for line in lines
    )
