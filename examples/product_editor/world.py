"""The world of product cards: what a card can show, as data. A scene drawn twice gives the same pixels."""

import hashlib
import random
from dataclasses import dataclass
from typing import Final

Colour = tuple[int, int, int]  # red, green, blue, each 0..255


@dataclass(frozen=True, slots=True)
class Name:
    """What a thing is called, in Chinese and in English."""

    zh: str
    en: str


PRODUCTS: Final = {
    "bag": Name("包", "bag"),
    "bottle": Name("瓶子", "bottle"),
    "cap": Name("帽子", "cap"),
    "chair": Name("椅子", "chair"),
    "mug": Name("杯子", "mug"),
    "shoe": Name("鞋子", "shoe"),
    "tshirt": Name("T恤", "T-shirt"),
}
COLOURS: Final[dict[str, tuple[Name, Colour]]] = {
    "black": (Name("黑色", "black"), (38, 38, 42)),
    "blue": (Name("蓝色", "blue"), (40, 95, 210)),
    "green": (Name("绿色", "green"), (40, 150, 70)),
    "orange": (Name("橙色", "orange"), (243, 140, 30)),
    "purple": (Name("紫色", "purple"), (130, 60, 170)),
    "red": (Name("红色", "red"), (214, 40, 46)),
    "white": (Name("白色", "white"), (244, 244, 244)),
    "yellow": (Name("黄色", "yellow"), (245, 215, 50)),
}
BACKDROPS: Final[dict[str, tuple[Name, Colour]]] = {
    "cream": (Name("米色", "cream"), (240, 226, 196)),
    "grey": (Name("灰色", "grey"), (176, 180, 186)),
    "mint": (Name("薄荷绿", "mint"), (178, 228, 204)),
    "navy": (Name("深蓝色", "navy"), (44, 58, 96)),
    "pink": (Name("粉色", "pink"), (246, 190, 205)),
    "sky": (Name("天蓝色", "sky blue"), (165, 212, 240)),
}
STYLES: Final = ("gradient", "plain", "room")
SIDES: Final = ("left", "right")
TAGS: Final = ("-50%", "NEW", "SALE", "¥59", "¥99", "¥199", "¥299", "包邮", "新品上市", "限时特惠")


@dataclass(frozen=True, slots=True)
class Item:
    """One product on a card; places and sizes are shares of the card's side.

    Args:
        product: A key of PRODUCTS.
        colour: A key of COLOURS.
        x: Where its middle is, from the left.
        y: Where it stands, from the top.
        size: The side of the square that holds it.
    """

    product: str
    colour: str
    x: float
    y: float
    size: float


@dataclass(frozen=True, slots=True)
class Tag:
    """A red plate with a text in an upper corner; side is left or right."""

    text: str
    side: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A card: one or two items from left to right, a backdrop in one of three styles, perhaps a tag."""

    backdrop: str
    style: str
    items: tuple[Item, ...]
    tag: Tag | None = None


def held_out(product: str, colour: str, verb: str = "") -> bool:
    """Tell whether training must not show this product in this colour, or reach it by this verb.

    A hash decides, so that nothing is chosen: about an eighth of the pairs, and of the other pairs about a
    tenth for each verb.

    Example:
        >>> held_out("mug", "white"), held_out("mug", "black")
        (True, False)
    """
    return _share(f"{product}/{colour}", 8) or bool(verb and _share(f"{verb}/{product}/{colour}", 10))


def _share(words: str, one_in: int) -> bool:
    return int.from_bytes(hashlib.sha256(f"cards 12/{words}".encode()).digest()[:8]) % one_in == 0


def any_scene(draw: random.Random, *, unseen: bool = False) -> Scene:
    """Draw a card.

    Args:
        draw: The source of chance.
        unseen: Whether at least one item is a pair that training never shows; otherwise none is.
    """
    n_items = draw.choice((1, 2, 2))
    tag = Tag(draw.choice(TAGS), draw.choice(SIDES)) if draw.random() < 0.5 else None
    pairs = _pairs(draw, n_items, unseen=unseen)
    items = tuple(_placed(draw, pair, place, n_items) for place, pair in enumerate(pairs))
    return Scene(draw.choice(sorted(BACKDROPS)), draw.choice(STYLES), items, tag)


def _pairs(draw: random.Random, n_items: int, *, unseen: bool) -> list[tuple[str, str]]:
    """Draw (product, colour) pairs with different products."""
    while True:
        pairs = [
            (product, draw.choice(sorted(COLOURS))) for product in draw.sample(sorted(PRODUCTS), n_items)
        ]
        if any(held_out(*pair) for pair in pairs) == unseen:
            return pairs


def _placed(draw: random.Random, pair: tuple[str, str], place: int, n_items: int) -> Item:
    alone = n_items == 1
    size = draw.uniform(0.45, 0.6) if alone else draw.uniform(0.40, 0.50)
    x = draw.uniform(0.38, 0.62) if alone else (0.26, 0.74)[place] + draw.uniform(-0.02, 0.02)
    return Item(*pair, x=round(x, 3), y=round(draw.uniform(0.80, 0.92), 3), size=round(size, 3))
