"""``anyport run``: a bundle on pictures or arrays."""

from __future__ import annotations

from typing import Any

import click

from anyport.cli.frame import show_json
from anyport.cli.options import SizeType, json_option
from anyport.cli.taskoptions import TaskCommand


@click.command(cls=TaskCommand)
@click.argument("bundle")
@click.argument("inputs", nargs=-1, metavar="INPUT…")
@click.option("--variant", help="The variant of the bundle; its own choice by default.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads for one operator; all cores by default.")
@click.option("--memory-limit", type=SizeType(), help="Bound weights and computation, such as 512MB or 2GB.")
@click.option("--provider", default="cpu", show_default=True, help="Execution provider; asserted.")
@json_option
def command(bundle: str, inputs: tuple[str, ...], as_json: bool, **chosen: Any) -> None:  # noqa: ANN401, FBT001
    """Run BUNDLE (or a plain .onnx file) on INPUTs: pictures, or NAME=FILE.npy.

    `anyport run BUNDLE --help` lists the options of that bundle's task, too.
    """
    from anyport.runtime import SessionOptions
    from anyport.task import TaskOptions, open_task

    session = SessionOptions(
        provider=chosen.pop("provider"),
        n_threads=chosen.pop("threads"),
        memory_limit_bytes=chosen.pop("memory_limit"),
    )
    task = open_task(bundle, TaskOptions(variant=chosen.pop("variant"), session=session))
    try:
        found = task.answer(inputs, {name: value for name, value in chosen.items() if value is not None})
    finally:
        task.close()
    if as_json:
        show_json(found.record)
    else:
        click.echo("\n".join(found.lines))
