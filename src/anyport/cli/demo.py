"""``anyport demo``: a bundle that ships with anyport is run; no PyTorch."""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec

import click

from anyport.cli.demonstrating import DemoEdit, edit_picture, read_digit
from anyport.cli.options import json_option
from anyport.errors import require


@click.command()
@click.option("--instruction", help="What to change in the picture, in words.")
@click.option("-o", "--output", help="Write before and after, side by side, to this .png, .jpg or .webp.")
@click.option("--force", is_flag=True, help="Replace an existing output file.")
@json_option
def command(*, instruction: str | None, output: str | None, force: bool, as_json: bool) -> int:
    """Edit a picture as it is told, with a model that ships with anyport; no PyTorch needed.

    This needs the extra 'text'. Without it a bundle that reads a digit is verified and run.
    """
    wants_edit = instruction is not None or output is not None
    if wants_edit:
        require("tokenizers", extra="text", step="an instruction in words")
    with resources.as_file(resources.files("anyport") / "demo") as folder:
        if not wants_edit and find_spec("tokenizers") is None:
            return read_digit(folder, as_json=as_json)
        return edit_picture(folder, DemoEdit(instruction, output, force), as_json=as_json)
