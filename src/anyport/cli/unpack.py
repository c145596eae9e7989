"""``anyport unpack``: a zip file becomes a bundle's folder."""

from __future__ import annotations

from pathlib import Path

import click

from anyport.cli.frame import show_json
from anyport.cli.options import force_option, json_option


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@force_option
@json_option
def command(file: Path, output: Path, *, force: bool, as_json: bool) -> None:
    """Make a folder of the bundle in FILE, a zip; every digest is checked on the way."""
    from anyport.bundle import unpack

    written = unpack(file, output, force=force)
    if as_json:
        show_json({"folder": str(written)})
    else:
        click.echo(f"  unpacked  {written}")
