"""``anyport demo``: the bundle that ships with anyport is verified and run."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final

import click

from anyport.cli.frame import show_json
from anyport.cli.options import json_option
from anyport.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

_SHADES: Final = " .:-=+*#%@"


@click.command()
@json_option
def command(*, as_json: bool) -> int:
    """Verify the digits bundle that ships with anyport, then let it read a picture; no PyTorch needed."""
    shipped = resources.files("anyport") / "demo"
    if not (shipped / "digits.port").is_file():
        raise BundleError("this copy of anyport ships without its demo", do="pip install anyport")
    with (
        resources.as_file(shipped / "digits.port") as bundle_path,
        resources.as_file(shipped / "seven.png") as picture_path,
    ):
        return _demonstrate(bundle_path, picture_path, as_json=as_json)


def _demonstrate(bundle_path: Path, picture_path: Path, *, as_json: bool) -> int:
    from anyport.bundle import open_bundle
    from anyport.runtime import open_session
    from anyport.task import open_task
    from anyport.verify import verify_bundle

    with open_bundle(bundle_path) as bundle:
        verdicts = list(verify_bundle(bundle, open_session))
    with open_task(bundle_path) as task:
        found = task.answer([str(picture_path)], {"top": 3})
        drawing = _drawing(picture_path)
    if as_json:
        show_json({"verdicts": [verdict.to_json() for verdict in verdicts], "run": found.record})
        return int(any(verdict.status.value != "PASS" for verdict in verdicts))
    for verdict in verdicts:
        click.echo(f"  verify    {verdict.summary()}")
        verdict.raise_if_bad()
    click.echo("\n".join((f"  run       {picture_path.name}", "", *drawing, "", *found.lines)))
    return 0


def _drawing(picture_path: Path) -> list[str]:
    """Draw the picture 8 lines high with letters, bright where the picture is."""
    import numpy as np
    from PIL import Image

    from anyport.task.pictures import read_picture

    pixels = np.asarray(read_picture(picture_path).convert("L").resize((8, 8), Image.Resampling.BOX))
    return [
        "            " + "".join(_SHADES[int(value) * len(_SHADES) // 256] * 2 for value in row)
        for row in pixels
    ]
