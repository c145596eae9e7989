"""``anyport recipes``: the model families that need no description."""

from __future__ import annotations

import click

from anyport.cli.frame import show_json
from anyport.cli.options import json_option, table


@click.command()
@json_option
def command(*, as_json: bool) -> None:
    """List the model families that `anyport build` takes apart by itself."""
    from anyport.recipe import RECIPES

    records = [
        {
            "name": name,
            "about": entry.about,
            "architectures": sorted(entry.architectures),
            "files": sorted(entry.suffixes),
        }
        for name, entry in RECIPES.items()
    ]
    if as_json:
        show_json({"recipes": records})
        return
    rows: list[tuple[str, str]] = []
    for name, entry in RECIPES.items():
        files = [f"*{suffix}" for suffix in sorted(entry.suffixes)]
        rows += [(name, entry.about), *(("", word) for word in (*sorted(entry.architectures), *files))]
    click.echo(table(rows))
