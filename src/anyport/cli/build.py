"""``anyport build``: a PyTorch model becomes a proven bundle."""

from __future__ import annotations

from typing import Any

import click

from anyport.cli.describing import describing_options, plan_from, step_printer, variant_options
from anyport.cli.frame import show_json
from anyport.cli.remembering import remember_weights


@click.command()
@click.argument("target", metavar="SOURCE")
@variant_options
@describing_options
def command(target: str, as_json: bool, dry_run: bool, **chosen: Any) -> int:  # noqa: ANN401, FBT001
    """Export SOURCE, prove the export against PyTorch, and seal it as a bundle.

    SOURCE is a folder with an anyport.toml, file.py:function or package.module:function (it returns the
    nn.Module, in eval mode; the file is imported as Python imports any file), or a Hugging Face id or
    folder that a recipe knows.

    Exit code 1: the verdict is no pass, or a variant that was asked for did not pass its gates.
    """
    plan = plan_from(target, chosen)
    from anyport.build import build, check_words

    check_words(plan)
    if dry_run:
        show_json({"plan": str(plan).splitlines()}) if as_json else click.echo(plan)
        return 0
    result = build(plan, step_printer(as_json=as_json))
    remember_weights(result.path, result.weights_folder)
    if as_json:
        show_json(result.to_json())
    return 1 if result.refused else 0
