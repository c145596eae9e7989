"""Draws a scene: products as shaded silhouettes with a shadow, and a tag; Pillow and numpy only."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from silhouettes import SILHOUETTES, Ellipse, Pie, Polygon, Ring, Shape
from world import BACKDROPS, COLOURS, Colour, Item, Scene, Tag

Picture = NDArray[np.uint8]  # [side, side, 3]: red, green, blue

CANVAS: Final = 256  # pixels: a card is drawn at this side, then reduced by the mean of whole blocks
BLACK: Final = (0, 0, 0)
WHITE: Final = (255, 255, 255)
TAG_RED: Final = (200, 20, 30)
TAG_WIDTH: Final = 150
TEXT_PIXELS: Final = 34
FONT: Final = Path(__file__).with_name("tags.ttf")  # the glyphs of TAGS from WenQuanYi Micro Hei: README.md


def render(scene: Scene, side: int = 64) -> Picture:
    """Draw a card.

    Args:
        scene: What it shows.
        side: Pixels of a side; a divisor of 256.

    Example:
        >>> render(Scene("grey", "plain", (Item("mug", "red", 0.5, 0.9, 0.5),)), 32).shape
        (32, 32, 3)
    """
    ground = BACKDROPS[scene.backdrop][1]
    card = _backdrop(ground, scene.style)
    draw = ImageDraw.Draw(card)
    for item in scene.items:
        _draw_item(draw, item, ground)
    if scene.tag:
        _draw_tag(draw, scene.tag)
    return np.asarray(card.reduce(CANVAS // side))


def _backdrop(ground: Colour, style: str) -> Image.Image:
    if style == "gradient":
        share = np.linspace(0, 0.35, CANVAS)[:, None, None]
        ramp = np.array(ground) * (1 - share) + 255 * share
        return Image.fromarray(np.repeat(ramp, CANVAS, axis=1).astype(np.uint8))
    card = Image.new("RGB", (CANVAS, CANVAS), ground)
    if style == "room":
        floor = (0, int(CANVAS * 0.72), CANVAS, CANVAS)
        ImageDraw.Draw(card).rectangle(floor, fill=_mixed(ground, BLACK, 0.2))
    return card


def _draw_item(draw: ImageDraw.ImageDraw, item: Item, ground: Colour) -> None:
    side = item.size * CANVAS
    square = (item.x * CANVAS - side / 2, item.y * CANVAS - side, side)
    colour = COLOURS[item.colour][1]
    silhouette = SILHOUETTES[item.product]
    _fill(draw, [Ellipse((0.05, 0.88, 0.95, 1.06))], square, _mixed(ground, BLACK, 0.35))
    _fill(draw, silhouette.body, square, colour)
    _fill(draw, silhouette.shade, square, _mixed(colour, BLACK, 0.25))
    _fill(draw, silhouette.light, square, _mixed(colour, WHITE, 0.35))
    _fill(draw, silhouette.hole, square, ground)


def _fill(
    draw: ImageDraw.ImageDraw, shapes: Sequence[Shape], square: tuple[float, float, float], colour: Colour
) -> None:
    """Fill shapes of a unit square that is laid over `square`: left, top, side, in pixels."""
    left, top, side = square
    for shape in shapes:
        if isinstance(shape, Polygon):
            draw.polygon([(left + x * side, top + y * side) for x, y in shape.points], fill=colour)
            continue
        x0, y0, x1, y1 = shape.box
        box = (left + x0 * side, top + y0 * side, left + x1 * side, top + y1 * side)
        if isinstance(shape, Ring):
            draw.ellipse(box, outline=colour, width=max(1, int(shape.width * side)))
        elif isinstance(shape, Pie):
            draw.pieslice(box, shape.start, shape.end, fill=colour)
        else:
            draw.ellipse(box, fill=colour)


def _draw_tag(draw: ImageDraw.ImageDraw, tag: Tag) -> None:
    left = 8 if tag.side == "left" else CANVAS - 8 - TAG_WIDTH
    draw.rounded_rectangle((left, 8, left + TAG_WIDTH, 56), 8, fill=TAG_RED)
    x0, y0, x1, y1 = draw.textbbox((0, 0), tag.text, font=_font())
    place = (left + (TAG_WIDTH - (x1 - x0)) / 2 - x0, 32 - (y1 - y0) / 2 - y0)
    draw.text(place, tag.text, font=_font(), fill=WHITE, stroke_width=1, stroke_fill=WHITE)


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT, TEXT_PIXELS, layout_engine=ImageFont.Layout.BASIC)


def _mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Return `first` with this share of `second`."""
    red, green, blue = (int(a * (1 - share) + b * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
