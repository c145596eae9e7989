"""Says an edit in Chinese or English: synonyms, word orders, and several names for each thing."""

import random
from typing import Final, NamedTuple

from edits import Edit
from world import BACKDROPS, COLOURS, PRODUCTS, Scene

LANGUAGES: Final = ("en", "zh")

# {item} what changes, {colour}, {product}, {backdrop}, {text} and {corner} what it becomes
TEMPLATES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "zh": {
        "recolour": (
            "把{item}换成{colour}",
            "将{item}改成{colour}",
            "{item}变成{colour}",
            "请把{item}改为{colour}",
        ),
        "remove": ("去掉{item}", "把{item}删除", "移除{item}", "不要{item}", "请删除{item}"),
        "replace": ("把{item}换成{product}", "将{item}替换为{product}", "用{product}替换{item}"),
        "background": (
            "把背景换成{backdrop}",
            "背景改成{backdrop}",
            "换成{backdrop}背景",
            "请用{backdrop}背景",
        ),
        "tag_add": ("在{corner}添加'{text}'文字", "{corner}加上'{text}'标签", "添加'{text}'到{corner}"),
        "tag_change": ("把标签改成'{text}'", "文字换成'{text}'", "将标签文字改为'{text}'"),
        "tag_remove": ("去掉标签", "删除文字标签", "把标签去掉", "不要标签"),
    },
    "en": {
        "recolour": (
            "make {item} {colour}",
            "change {item} to {colour}",
            "recolor {item} {colour}",
            "turn {item} {colour}",
        ),
        "remove": ("remove {item}", "delete {item}", "take away {item}", "take {item} away"),
        "replace": (
            "replace {item} with a {product}",
            "swap {item} for a {product}",
            "turn {item} into a {product}",
        ),
        "background": (
            "change the background to {backdrop}",
            "make the background {backdrop}",
            "use a {backdrop} background",
        ),
        "tag_add": (
            "add '{text}' at the {corner}",
            "add a '{text}' tag at the {corner}",
            "put '{text}' at the {corner}",
        ),
        "tag_change": (
            "change the tag to '{text}'",
            "make the tag say '{text}'",
            "replace the tag with '{text}'",
        ),
        "tag_remove": ("remove the tag", "delete the tag", "take the tag away", "take away the tag"),
    },
}
# a tag whose corner nobody names goes to the left
TEMPLATES_LEFT: Final = {
    "zh": ("添加'{text}'文字", "加上'{text}'标签"),
    "en": ("add '{text}'", "add a '{text}' tag"),
}
CORNERS: Final = {
    "zh": {"left": "左上角", "right": "右上角"},
    "en": {"left": "top left", "right": "top right"},
}


def instruction(draw: random.Random, edit: Edit, language: str) -> str:
    """Say an edit, in other words at each call; each way of saying it has this edit alone as its answer.

    Args:
        draw: The source of chance.
        edit: What to say.
        language: "zh" or "en".

    Example:
        >>> from world import Item
        >>> before = Scene("grey", "plain", (Item("mug", "red", 0.5, 0.9, 0.5),))
        >>> instruction(random.Random(0), Edit("remove", before, Scene("grey", "plain", ()), 0), "en")
        'take the mug away'
    """
    words: dict[str, str] = {}
    templates = TEMPLATES[language][edit.kind]
    if edit.place is not None:
        words["item"] = item_name(draw, edit.before, edit.place, language)
    if edit.place is not None and edit.kind != "remove":
        item = edit.after.items[edit.place]
        words["colour"] = getattr(COLOURS[item.colour][0], language)
        words["product"] = getattr(PRODUCTS[item.product], language)
    if edit.kind == "background":
        words["backdrop"] = getattr(BACKDROPS[edit.after.backdrop][0], language)
    if edit.after.tag:
        words["text"], words["corner"] = edit.after.tag.text, CORNERS[language][edit.after.tag.side]
        if edit.kind == "tag_add" and edit.after.tag.side == "left":
            templates += TEMPLATES_LEFT[language]
    return draw.choice(templates).format(**words)


def item_name(draw: random.Random, scene: Scene, place: int, language: str) -> str:
    """Name an item so that no other is meant: by product, by colour, by place, or by two of these.

    Args:
        draw: The source of chance.
        scene: The card that shows it.
        place: Counted from the left.
        language: "zh" or "en".
    """
    item = scene.items[place]
    product = getattr(PRODUCTS[item.product], language)
    colour = getattr(COLOURS[item.colour][0], language)
    names = (_chinese_names if language == "zh" else _english_names)(product, colour, place)
    n_items, n_colours = len(scene.items), len({other.colour for other in scene.items})
    return draw.choice(
        names.always * 3 + names.by_place * (n_items > 1) + names.by_colour * (n_items == n_colours > 1)
    )


class _Names(NamedTuple):
    """Ways to name an item: on every card, beside another one, beside one of another colour."""

    always: tuple[str, ...]
    by_place: tuple[str, ...]
    by_colour: tuple[str, ...]


def _chinese_names(product: str, colour: str, place: int) -> _Names:
    side = ("左边", "右边")[place]
    return _Names((product, colour + product), (f"{side}的{product}", f"{side}的商品"), (f"{colour}的商品",))


def _english_names(product: str, colour: str, place: int) -> _Names:
    side = ("left", "right")[place]
    by_place = (f"the {product} on the {side}", f"the {side} {product}", f"the {side} item")
    return _Names((f"the {product}", f"the {colour} {product}"), by_place, (f"the {colour} item",))
