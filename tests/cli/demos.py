"""Stand-ins for what ships with anyport: a tiny reader of corners, and the editor itself."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from anyport.bundle import pack
from tests.house import tree
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = tree.PACKAGE / "demo"
EDITOR = ("editor.port", "card.png", "instructions.txt")


def ship_digits(folder: Path) -> None:
    """Put a bundle and a picture there."""
    pack(networks.corners_bundle(folder.parent), folder / "digits.port")
    Image.fromarray(np.array([[0, 0], [255, 0]], np.uint8)).save(folder / "seven.png")


def ship_editor(folder: Path) -> None:
    """Put the editor that ships with anyport there."""
    for name in EDITOR:
        shutil.copy(SHIPPED / name, folder / name)
