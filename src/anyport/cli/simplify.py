"""``anyport simplify``: fewer nodes, proven equal, not slower."""

from __future__ import annotations

from pathlib import Path

import click

from anyport.cli.describing import step_printer
from anyport.cli.frame import show_json
from anyport.cli.options import SizeType, force_option, gathered, json_option
from anyport.cli.simplifying import SimplifyWords, checked, equality_of, settings_of


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="FILE.onnx")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Where it goes.")
@click.option("--tools", metavar="A,B", help="Of none, onnxscript, onnxsim, onnxslim.  [default: all]")
@click.option("--levels", metavar="A,B", help="Of all, extended, basic, none.  [default: all four]")
@click.option("--memory-limit", "memory_limit_bytes", type=SizeType(), help="Of one tool: 2GB.")
@click.option("--timeout", "timeout_s", type=float, help="Of one tool, in seconds.  [default: 600]")
@click.option("--against", metavar="SOURCE", help="Hold it against PyTorch: model.py:load.")
@click.option("--input", "inputs", multiple=True, metavar="NAME=TENSOR", help="ids=int64[batch,n] 0..999")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZES", help="batch=1..64")
@click.option(
    "--max-cases", type=int, help="At most this many cases, more where many inputs need them.  [default: 40]"
)
@click.option("--seed", type=int, help="Of the random cases.  [default: 0]")
@force_option
@json_option
@gathered(SimplifyWords)
def command(words: SimplifyWords) -> None:
    """Simplify FILE.onnx: each tool in a process of its own, its result compared and timed.

    What is proven equal and not slower is kept; of equally fast ones, that with the fewest nodes.
    """
    equality = equality_of(checked(words))
    from anyport.graph.simplify import simplify_file

    show = step_printer(as_json=words.as_json)
    files, settings = (words.model, words.out), settings_of(words)
    found = simplify_file(files, equality, settings, show, force=words.force)
    if words.as_json:
        show_json(found.to_json() | {"file": str(words.out)})
        return
    click.echo("\n".join(f"  {line}" for line in str(found).splitlines()))
    show("simplify", found.summary())
