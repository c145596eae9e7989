"""How far a long run is: one line on a terminal, which is gone at the end."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyport.task.task import Progress

_BEGIN_AGAIN: Final = "\r\x1b[K"  # to the left, and erase (ECMA-48)


@contextmanager
def counting(*, is_wanted: bool) -> Iterator[Progress]:
    """Count on standard error while this context is open, if that is a terminal; in a pipe never."""
    from anyport.task.task import silent

    if not is_wanted or not sys.stderr.isatty():
        yield silent
        return

    def show(what: str, n_done: int, n_all: int) -> None:
        if n_all > 1:
            click.echo(f"{_BEGIN_AGAIN}  {what}: {n_done} of {n_all}", nl=False, err=True)

    try:
        yield show
    finally:
        click.echo(_BEGIN_AGAIN, nl=False, err=True)
