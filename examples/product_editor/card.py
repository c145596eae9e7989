"""Writes the card of the demo: `python examples/product_editor/card.py card.png`."""

import argparse
from pathlib import Path
from typing import Final

from drawing import render
from PIL import Image
from world import Item, Scene, Tag

CARD: Final = Scene(
    backdrop="mint",
    style="room",
    items=(Item("tshirt", "white", 0.26, 0.88, 0.48), Item("shoe", "blue", 0.75, 0.86, 0.44)),
    tag=Tag("SALE", "right"),
)


def main() -> None:
    """Write the card."""
    parser = argparse.ArgumentParser(description="Write the card of the demo.")
    parser.add_argument("output", type=Path)
    Image.fromarray(render(CARD)).save(parser.parse_args().output, optimize=True)


if __name__ == "__main__":
    main()
