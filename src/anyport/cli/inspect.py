"""``anyport inspect``: what a bundle or an .onnx file holds."""

from __future__ import annotations

from pathlib import Path

import click

from anyport.cli.frame import show_json
from anyport.cli.options import json_option


@click.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="BUNDLE|FILE.onnx")
@click.option("--netron", is_flag=True, help="Open the graph in the viewer (anyport[view]).")
@click.option("--part", help="The part to view, where there are several.")
@click.option("--variant", help="The variant to view; the bundle's own choice by default.")
@json_option
def command(path: Path, *, netron: bool, part: str | None, variant: str | None, as_json: bool) -> None:
    """Show parts, axes, opset, metadata, operators and sizes; of a bundle, from its manifest alone."""
    from anyport.cli.facts import facts_of, lines_of, view

    if netron:
        view(path, part, variant)
        return
    record = facts_of(path)
    if as_json:
        show_json(record)
    else:
        click.echo("\n".join(lines_of(record)))
