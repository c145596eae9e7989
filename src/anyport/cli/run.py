"""``anyport run``: a bundle on pictures or arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anyport.cli.bounding import MemoryLines
from anyport.cli.counting import counting
from anyport.cli.frame import show_json
from anyport.cli.options import SizeType, gathered, json_option, library_option, weights_option
from anyport.cli.remembering import folder_of, remember_weights
from anyport.cli.taskoptions import TaskCommand, chosen_graphs, chosen_options

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Words:
    """What stands on the command line."""

    bundle: str
    inputs: tuple[str, ...]
    variant: str | None
    threads: int | None
    max_memory_bytes: int | None
    provider: str
    libraries: tuple[Path, ...]
    weights: Path | None
    as_json: bool


@click.command(cls=TaskCommand)
@click.argument("bundle", metavar="BUNDLE")
@click.argument("inputs", nargs=-1, metavar="INPUT…")
@click.option("--variant", help="The variant of the bundle; its own choice by default.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads for one operator; all cores by default.")
@click.option(
    "--max-memory",
    "max_memory_bytes",
    type=SizeType(),
    help="Bound computing and copied weights: 512MB, 6GB. Says first what stays open, and how.",
)
@click.option("--provider", default="cpu", show_default=True, help="Execution provider; no fallback.")
@library_option
@weights_option
@json_option
@gathered(Words)
def command(words: Words) -> None:
    """Run BUNDLE, or a plain .onnx file, on INPUTs: pictures, or NAME=FILE.npy.

    `anyport run BUNDLE --help` lists the options of that bundle's task, too.
    """
    from anyport.runtime import SessionOptions
    from anyport.task import TaskOptions
    from anyport.task.opening import task_of

    folder = folder_of(Path(words.bundle), words.weights)
    session = SessionOptions(words.provider, words.threads, libraries=words.libraries, weights_folder=folder)
    context = click.get_current_context()
    chosen = chosen_options(context)
    memory = MemoryLines(words.max_memory_bytes, is_shown=not words.as_json)
    with memory.watching(), counting(is_wanted=not words.as_json) as progress:
        options = TaskOptions(
            words.variant,
            session=session,
            progress=progress,
            max_memory_bytes=words.max_memory_bytes,
            memory_told=memory.told,
        )
        with task_of(chosen_graphs(context), options) as task:
            remember_weights(Path(words.bundle), words.weights)
            if chosen.get("stream") and not words.as_json:
                _show_pieces(task.pieces(words.inputs, chosen))
                return
            found = task.answer(words.inputs, chosen)
    if words.as_json:
        show_json(found.record | memory.record())
        return
    click.echo("\n".join(found.lines))
    for note in found.notes:
        click.echo(f"note: {note}", err=True)


def _show_pieces(pieces: Iterator[str]) -> None:
    """Print a text while it is written: nothing before its first piece, a line end whatever happens then."""
    indent = "  "
    try:
        for piece in pieces:
            click.echo(f"{indent}{piece}", nl=False)  # echo flushes
            indent = ""
    finally:
        if not indent:
            click.echo()
