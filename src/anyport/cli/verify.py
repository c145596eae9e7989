"""``anyport verify``: a bundle replays its proof; an .onnx file is held against its source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from anyport.cli.checking import checklist_options, show_checklist, wants_checklist
from anyport.cli.describing import checking_options, require_build, settings_from
from anyport.cli.frame import show_json
from anyport.cli.options import weights_option
from anyport.cli.remembering import folder_of, remember_weights
from anyport.errors import UsageError

_WORDS: Final = {"FAIL": "failed", "INCONCLUSIVE": "inconclusive"}  # what --allow calls a status


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--against", metavar="SOURCE|FILE.onnx", help="What an .onnx file is held against: model.py:load."
)
@click.option("--variant", help="Of the bundle; its own choice by default.")
@click.option("--part", help="Of the bundle; all by default.")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=TENSOR", help="Values: ids=int64[batch,n] 0..999"
)
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZES", help="Sizes of an axis: batch=1..64")
@click.option("--argument", "arguments", multiple=True, metavar="NAME=VALUE", help="Of forward(), fixed.")
@weights_option
@checklist_options
@checking_options
def command(target: Path, as_json: bool, **chosen: Any) -> int:  # noqa: ANN401, FBT001
    """Verify TARGET: a bundle anywhere, without PyTorch; or an .onnx file --against its source.

    Exit code 0: proven; 1: it failed, or the comparison proves nothing. With --checklist, 1: a line fails.
    """
    is_file = target.suffix == ".onnx"
    if wants_checklist(chosen):
        return show_checklist(target, chosen, as_json=as_json)
    if is_file == (chosen["against"] is None):
        raise UsageError(
            f"'{target.name}' needs --against" if is_file else f"'{target.name}' carries its own proof",
            do="anyport verify m.onnx --against model.py:load" if is_file else f"anyport verify {target}",
        )
    if is_file and (chosen["variant"] or chosen["part"]):
        raise UsageError(f"'{target.name}' is no bundle: --variant and --part do not apply")
    verdicts = _verify_file(target, chosen) if is_file else _verify_bundle(target, chosen)
    bad = [
        verdict for verdict in verdicts if _WORDS.get(verdict.status.value, "passed") not in chosen["allow"]
    ]
    if as_json:
        show_json({"verdicts": [verdict.to_json() for verdict in verdicts]})
        return int(any(verdict.status.value in _WORDS for verdict in bad))
    for verdict in verdicts:
        click.echo(f"  {verdict.part.name}   {verdict.summary()}\n{verdict.table()}")
    for verdict in bad:
        verdict.raise_if_bad()
    return 0


def _verify_file(target: Path, chosen: dict[str, Any]) -> list[Any]:
    require_build()
    from anyport.build import VerifyRequest, verify_plain
    from anyport.build.description import toml_values
    from anyport.tensors import pairs

    request = VerifyRequest(
        path=target,
        against=chosen["against"],
        inputs=pairs(chosen["inputs"], "--input"),
        dims=pairs(chosen["dims"], "--dim"),
        arguments=toml_values(chosen["arguments"], "--argument"),
        settings=replace(
            settings_from(chosen | {"force": None}),
            show_command=f"anyport verify {target} --against {chosen['against']}",
        ),
    )
    return [verify_plain(request)]


def _verify_bundle(target: Path, chosen: dict[str, Any]) -> list[Any]:
    from anyport.bundle import open_bundle
    from anyport.runtime import SessionOptions, open_session
    from anyport.verify import verify_bundle

    folder = folder_of(target, chosen["weights"])
    # a proof is checked, so that the weights are: every byte
    options = SessionOptions(
        libraries=tuple(chosen["libraries"]), weights_folder=folder, whole_digest=folder is not None
    )
    with open_bundle(target) as bundle:
        bundle.check()
        verdicts = verify_bundle(
            bundle,
            lambda graph: open_session(graph, options),
            variant=chosen["variant"],
            part=chosen["part"],
        )
        remember_weights(target, chosen["weights"])
        return list(verdicts)
