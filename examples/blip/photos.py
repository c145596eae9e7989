"""Write photographs to try the commands on: python examples/blip/photos.py FOLDER [--tiles N].

They are scikit-image's own (its data/README.txt names authors and licences). `--tiles` cuts as many
different pictures out of them, for calibration: real ones are better.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Final

import skimage
from PIL import Image

NAMES: Final = {
    "astronaut": "astronaut.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
SMALLEST: Final = 96  # pixels, of a tile


def photographs() -> dict[str, Image.Image]:
    """Return name -> picture."""
    folder = Path(skimage.__file__).parent / "data"
    return {name: Image.open(folder / file).convert("RGB") for name, file in NAMES.items()}


def tiles(n_tiles: int) -> dict[str, Image.Image]:
    """Return so many pieces, at seeded places and of seeded sizes."""
    draw = random.Random(0)
    pictures, found = photographs(), {}
    for number in range(n_tiles):
        name = list(pictures)[number % len(pictures)]
        picture = pictures[name]
        width, height = (draw.randint(SMALLEST, side) for side in picture.size)
        left, top = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
        found[f"{name}-{number:03d}"] = picture.crop((left, top, left + width, top + height))
    return found


def main() -> None:
    """Read the words of the command line, and write."""
    parser = argparse.ArgumentParser(description="Photographs of scikit-image, as files.")
    parser.add_argument("folder", type=Path, help="where they go")
    parser.add_argument("--tiles", type=int, default=0, help="so many pieces of them instead")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    pictures = tiles(chosen.tiles) if chosen.tiles else photographs()
    for name, picture in pictures.items():
        picture.save(chosen.folder / f"{name}.jpg", quality=92)


if __name__ == "__main__":
    main()
