"""``anyport export``: a PyTorch model becomes a plain .onnx file, proven like a bundle."""

from __future__ import annotations

from typing import Any

import click

from anyport.cli.describing import describing_options, plan_from, step_printer
from anyport.cli.frame import show_json


@click.command()
@click.argument("target", metavar="SOURCE")
@describing_options
def command(target: str, as_json: bool, dry_run: bool, **chosen: Any) -> None:  # noqa: ANN401, FBT001
    """Export SOURCE to one .onnx file, and compare it with PyTorch before it appears.

    SOURCE is what `anyport build` takes. Above 2 GB the weights lie beside the file, as safetensors.
    """
    plan = plan_from(target, chosen)
    if dry_run:
        show_json({"plan": str(plan).splitlines()}) if as_json else click.echo(plan)
        return
    from anyport.build import export_plain

    result = export_plain(plan, step_printer(as_json=as_json))
    if as_json:
        show_json({"files": [str(path) for path in result.files], "verdict": result.verdict.to_json()})
