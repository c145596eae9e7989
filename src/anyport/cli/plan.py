"""``anyport plan``: what a build would need, said before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from anyport.cli.describing import building_options, model_options, plan_from, variant_options
from anyport.cli.frame import show_json
from anyport.cli.planning import cost_lines


@click.command()
@click.argument("target", metavar="SOURCE")
@click.option(
    "-o",
    "--out",
    "out",
    type=click.Path(path_type=Path),
    default="model.port",
    help="Where the bundle would go: the disk there is looked at.",
)
@variant_options
@model_options
@building_options
def command(target: str, as_json: bool, **chosen: Any) -> int:  # noqa: ANN401, FBT001
    """Say what `anyport build SOURCE` would need: download, disk, memory, time, of each part and in all.

    SOURCE and the options are those of `anyport build`. No weights are read: sizes come from the
    configuration and from the headers and the index of the checkpoint (of a Hugging Face id only these small
    files are downloaded). The times are those of this machine, which multiplies matrices for half a second.
    Where large parts need not be loaded, it is said what `--weights reference` and `copy` would need.

    Exit code 1: the disk or the memory of this machine is not enough.
    """
    plan = plan_from(target, chosen)
    from anyport.build import estimate_build

    cost = estimate_build(plan)
    show_json(cost.to_json()) if as_json else click.echo("\n".join(cost_lines(cost)))
    return 0 if cost.is_enough else 1
