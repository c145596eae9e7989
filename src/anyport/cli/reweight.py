"""``anyport reweight``: new weights under the graph of a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from anyport.cli.describing import step_printer
from anyport.cli.frame import show_json
from anyport.cli.options import force_option, gathered, json_option, library_option
from anyport.cli.reweighting import ReweightWords, settings_of


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("checkpoint", type=click.Path(path_type=Path), metavar="WEIGHTS.safetensors")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The new bundle.")
@click.option("--against", metavar="SOURCE", help="Prove it with PyTorch: model.py:load, a project folder.")
@click.option("--version", metavar="X.Y.Z", help="Of the new bundle.  [default: the next patch]")
@click.option(
    "--max-cases", type=int, help="At most this many cases, more where many inputs need them.  [default: 40]"
)
@click.option("--seed", type=int, help="Of the random cases.  [default: 0]")
@library_option
@force_option
@json_option
@gathered(ReweightWords)
def command(words: ReweightWords) -> None:
    """Put the weights of a state_dict under the graph of BUNDLE.

    Every tensor is checked: name, shape, type, values. With --against the result is compared with PyTorch as
    in a build; without, it says of itself that it is unproven, and needs no PyTorch.
    """
    settings = settings_of(words)
    from anyport.build import reweight

    found = reweight(words.bundle, words.checkpoint, words.out, settings, step_printer(as_json=words.as_json))
    if words.as_json:
        show_json(found.to_json())
