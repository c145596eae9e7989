"""``anyport pack``: a bundle becomes one zip file."""

from __future__ import annotations

from pathlib import Path

import click

from anyport.cli.frame import show_json
from anyport.cli.options import force_option, json_option


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), metavar="BUNDLE")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The zip file to write.")
@click.option("--variant", help="Keep this variant alone; all by default.")
@force_option
@json_option
def command(bundle: Path, output: Path, *, variant: str | None, force: bool, as_json: bool) -> None:
    """Put BUNDLE, a folder, into one zip file; the same bundle gives the same bytes."""
    from anyport.bundle import pack
    from anyport.bundle.disk import size_text

    written = pack(bundle, output, variant=variant, force=force)
    size_bytes = written.stat().st_size
    if as_json:
        show_json({"file": str(written), "size_bytes": size_bytes})
    else:
        click.echo(f"  packed    {written}   {size_text(size_bytes)}")
