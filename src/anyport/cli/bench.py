"""``anyport bench``: how fast and how large, variant beside variant, and beside PyTorch."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anyport.cli.benching import NumbersType, SizesType, contests_from, report_writer, settings_from
from anyport.cli.describing import step_printer
from anyport.cli.frame import show_json
from anyport.cli.options import force_option, json_option, weights_option

if TYPE_CHECKING:
    from anyport.bench import BenchReport


@click.command()
@click.argument("targets", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--against", metavar="pytorch|SOURCE", help="PyTorch beside it: model.py:load, a project.")
@click.option("--variant", "variants", multiple=True, help="Of the bundle; all by default.")
@click.option("--part", help="Of the bundle; all by default.")
@click.option("--threads", type=NumbersType(), default="1", help="Such as 1,2.  [default: 1]")
@click.option("--size", "sizes", multiple=True, type=SizesType(), help="Such as batch=8,sequence=128")
@click.option("--batches", type=NumbersType(), help="For the throughput.  [default: 1,2,4,8,16,32]")
@click.option("--seconds", type=float, help="For the rounds; the batches again.  [default: 10]")
@click.option("--seed", type=int, help="Of the inputs and the order.  [default: 0]")
@click.option("--input", "inputs", multiple=True, metavar="NAME=TENSOR", help="Values: ids=int64[b,n] 0..999")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZES", help="Of a plain file: batch=1..64")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A plot (.svg, .png), or .json.")
@weights_option
@force_option
@json_option
def command(targets: tuple[Path, ...], as_json: bool, **chosen: Any) -> None:  # noqa: ANN401, FBT001
    """Measure TARGETS: bundles, all their variants side by side, or .onnx files that take the same inputs."""
    write = report_writer(chosen["out"], force=chosen["force"])
    settings = settings_from(chosen)
    show = step_printer(as_json=as_json)
    with ExitStack() as stack:
        report = _measure(contests_from(targets, chosen, stack), settings, show)
    write(report)
    if as_json:
        show_json(report.to_json())
        return
    from anyport.bench import table_of

    click.echo(f"\n{table_of(report)}")


def _measure(contests: list[Any], settings: Any, show: Any) -> BenchReport:  # noqa: ANN401 -- imported late
    from anyport.bench import BenchReport, Instruments, bench, this_machine

    # before anything runs: the load of the others is what counts
    machine = this_machine(("torch",) if any(c.base == "pytorch" for c in contests) else ())
    return BenchReport(machine, tuple(bench(c, settings, Instruments(progress=show)) for c in contests))
