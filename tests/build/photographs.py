"""Pictures of many sizes, colour and grey: photographs that come with scikit-image, and pieces of them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import skimage
from PIL import Image

FOLDER: Final = Path(skimage.__file__).parent / "data"
NAMES: Final = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)


def photographs(folder: Path, n: int) -> list[Path]:
    """Return ``n`` files: the photographs themselves, then pieces of them, which are written to a folder.

    The same ones for every ``n``: a smaller number leaves out the last.
    """
    random = np.random.default_rng(0)
    found = [FOLDER / name for name in NAMES]
    while len(found) < n:
        source = NAMES[len(found) % len(NAMES)]
        with Image.open(FOLDER / source) as whole:
            width, height = (int(random.integers(60, size)) for size in whole.size)
            left, top = int(random.integers(whole.width - width)), int(random.integers(whole.height - height))
            piece = whole.crop((left, top, left + width, top + height))
        piece.save(path := folder / f"{len(found)}-{Path(source).stem}.png")
        found.append(path)
    return found[:n]
