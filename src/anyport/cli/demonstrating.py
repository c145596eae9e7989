"""What ``anyport demo`` shows: a picture that is edited in words, or a digit that is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from anyport.cli.frame import show_json
from anyport.errors import BundleError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

_SHADES: Final = " .:-=+*#%@"
_SHOWN_SIDE: Final = 256  # pixels: small pictures are enlarged to it, by whole numbers
_GAP: Final = 16


@dataclass(frozen=True, slots=True)
class DemoEdit:
    """What is asked for.

    Attributes:
        instruction: The first line of the demo's ``instructions.txt`` if absent.
        output: Where before and after are written.
        force: Replace an existing file.
    """

    instruction: str | None
    output: str | None
    force: bool


def edit_picture(folder: Path, asked: DemoEdit, *, as_json: bool) -> int:
    """Edit the picture of the demo.

    Args:
        folder: With ``editor.port``, ``card.png`` and ``instructions.txt``.
        asked: What to do.
        as_json: Print a record.

    Raises:
        BundleError: The demo is not there, or the output cannot be written.
        InputError: The instruction does not fit.
        UsageError: The output exists, or its name says no format.
    """
    from PIL import Image

    from anyport.task import open_task
    from anyport.task.picture_files import picture_target, write_picture

    bundle, card = _whole(folder, "editor.port"), _whole(folder, "card.png")
    known = (folder / "instructions.txt").read_text(encoding="utf-8").splitlines()
    instruction = known[0] if asked.instruction is None else asked.instruction
    if not instruction.strip():
        raise InputError("the instruction has no words", do=f"such as --instruction '{known[0]}'")
    output = asked.output
    target = None if output is None else picture_target(output, exact=False, force=asked.force)
    with open_task(bundle) as task, Image.open(card) as before:
        found = task.edit([before], instruction)
        sheet = side_by_side(before.convert("RGB"), found.image)
    if target is not None:
        write_picture(target, sheet, None, exact=False, force=asked.force)
    record: dict[str, Any] = {"instruction": instruction, "file": str(target) if target else None}
    if as_json:
        size = {"width": found.image.width, "height": found.image.height}
        show_json(record | size | {"notes": list(found.notes)})
        return 0
    click.echo(f"  edit      {card.name}   {instruction}")
    click.echo(
        f"  written   {target}   before and after" if target else "  -o FILE.png writes before and after"
    )
    for note in found.notes:
        click.echo(f"  note: {note}")
    click.echo("\n".join(("  try       --instruction", *(f"            {line}" for line in known))))
    return 0


def side_by_side(before: Image.Image, after: Image.Image) -> Image.Image:
    """Return two pictures of one size beside each other, enlarged so that small ones can be seen."""
    from PIL import Image

    scale = max(1, _SHOWN_SIDE // max(before.size))
    width, height = before.width * scale, before.height * scale
    sheet = Image.new("RGB", (2 * width + _GAP, height), "white")
    for left, picture in ((0, before), (width + _GAP, after)):
        sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, 0))
    return sheet


def read_digit(folder: Path, *, as_json: bool) -> int:
    """Verify the digits bundle, then let it read a picture.

    Args:
        folder: With ``digits.port`` and ``seven.png``.
        as_json: Print a record.

    Raises:
        BundleError: The demo is not there.
        MismatchError: The bundle is not what it was.
    """
    from anyport.bundle import open_bundle
    from anyport.runtime import open_session
    from anyport.task import open_task
    from anyport.verify import verify_bundle

    bundle_path, picture_path = _whole(folder, "digits.port"), _whole(folder, "seven.png")
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
    click.echo("\n  pip install 'anyport[text]' adds a demo that edits a picture as it is told")
    return 0


def _whole(folder: Path, name: str) -> Path:
    """Return a file of the demo."""
    path = folder / name
    if not path.is_file():
        raise BundleError("this copy of anyport ships without its demo", do="pip install anyport")
    return path


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
