"""``anyport advise``: where and in which form a bundle should run."""

from __future__ import annotations

from pathlib import Path

import click

from anyport.cli.frame import show_json
from anyport.cli.options import json_option


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--for",
    "target",
    required=True,
    metavar="TARGET",
    help="android, browser, iphone, jetson, nvidia, server-cpu or windows-pc.",
)
@click.option("--variant", help="The variant that is read; the bundle's own choice by default.")
@json_option
def command(bundle: Path, target: str, variant: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Say which runtime, format and precision suit BUNDLE on a target, why, and what it costs.

    Each statement says where it is known from: read in the bundle, measured for anyport, from elsewhere with
    its link, or not measured at all.
    """
    from anyport.bundle import open_bundle
    from anyport.report import advise, traits_of

    with open_bundle(bundle) as opened:
        advice = advise(traits_of(opened, variant), target)
    if as_json:
        show_json(advice.to_json())
    else:
        click.echo(advice.text())
