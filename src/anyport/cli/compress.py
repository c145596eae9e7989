"""``anyport compress``: fewer bits, measured, judged, and never slower."""

from __future__ import annotations

from pathlib import Path

import click

from anyport.cli.compressing import CompressWords, checked, request_of
from anyport.cli.describing import step_printer
from anyport.cli.frame import show_json
from anyport.cli.options import force_option, gathered, json_option


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="FILE.onnx")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Where it goes.")
@click.option(
    "--method", default="int8", help="int8, int8-static, int8-dynamic:u8s8, fp16 …  [default: int8]"
)
@click.option("--calibrate", metavar="SAMPLES", help="A folder of pictures, calibrate.py:samples, or random.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="How pictures are read: mean=[0.5]"
)
@click.option("--against", metavar="SOURCE", help="Hold it against PyTorch: model.py:load.")
@click.option("--evaluate", metavar="FILE.py:FUNCTION", help="Your metric: accuracy(run) -> float.")
@click.option("--max-drop", type=float, help="Of your metric.  [default: 0.005]")
@click.option("--prefer", type=click.Choice(["size", "speed"]), help="size: kept even if not faster.")
@click.option("--input", "inputs", multiple=True, metavar="NAME=TENSOR", help="ids=int64[batch,n] 0..999")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZES", help="batch=1..64")
@click.option("--max-cases", type=int, help="To prove the speed of fp32, at most.  [default: 12]")
@click.option("--seed", type=int, help="Of the random cases.  [default: 0]")
@force_option
@json_option
@gathered(CompressWords)
def command(words: CompressWords) -> None:
    """Compress FILE.onnx: every flavour of the method is made, timed, and judged on your samples.

    What did nothing, is not faster, or answers worse is not written.
    """
    request = request_of(checked(words))
    from anyport.compress.compressing import compress_file

    show = step_printer(as_json=words.as_json)
    found = compress_file((words.model, words.out), request, show, force=words.force)
    if words.as_json:
        show_json(found.to_json() | {"file": str(words.out)})
        return
    click.echo("\n".join(f"  {line}" for line in str(found).splitlines()))
    show("compress", found.summary())
