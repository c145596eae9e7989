"""Edits of a card: each has one right answer, and neighbours that would be wrong."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from world import BACKDROPS, COLOURS, PRODUCTS, SIDES, TAGS, Scene, Tag, held_out

KINDS: Final = ("recolour", "remove", "replace", "background", "tag_add", "tag_change", "tag_remove")


@dataclass(frozen=True, slots=True)
class Edit:
    """A card before and after.

    Args:
        kind: One of KINDS.
        before: The card as it is.
        after: The card as it must become.
        place: Which item changes, counted from the left; None where none does.
    """

    kind: str
    before: Scene
    after: Scene
    place: int | None = None


def with_item(scene: Scene, place: int, **changes: str) -> Scene:
    """Return the scene with another product or colour at a place."""
    items = list(scene.items)
    items[place] = replace(items[place], **changes)  # type: ignore[arg-type]  # a product or a colour
    return replace(scene, items=tuple(items))


def without_item(scene: Scene, place: int) -> Scene:
    """Return the scene without the item at a place."""
    return replace(scene, items=scene.items[:place] + scene.items[place + 1 :])


def new_colours(scene: Scene, place: int, *, unseen: bool) -> list[str]:
    """Return the colours that an item may take: those kept from training if `unseen`, else the others."""
    item = scene.items[place]
    others = [colour for colour in COLOURS if colour != item.colour]
    return [colour for colour in others if held_out(item.product, colour, "recolour") == unseen]


def new_products(scene: Scene, place: int, *, unseen: bool) -> list[str]:
    """Return the products that may stand in for an item; none that the card shows already."""
    shown = {item.product for item in scene.items}
    colour = scene.items[place].colour
    others = [product for product in PRODUCTS if product not in shown]
    return [product for product in others if held_out(product, colour, "replace") == unseen]


def any_edit(draw: random.Random, scene: Scene, kind: str, *, unseen: bool = False) -> Edit | None:
    """Draw an edit of this kind, or None where the scene has none.

    Args:
        draw: The source of chance.
        scene: The card.
        kind: One of KINDS.
        unseen: Whether colours and products that training never reached are wanted, where there are any.
    """
    if kind in {"recolour", "remove", "replace"}:
        return _item_edit(draw, scene, kind, unseen=unseen)
    if kind == "background":
        backdrop = draw.choice([name for name in BACKDROPS if name != scene.backdrop])
        return Edit(kind, scene, replace(scene, backdrop=backdrop))
    return _tag_edit(draw, scene, kind)


def _item_edit(draw: random.Random, scene: Scene, kind: str, *, unseen: bool) -> Edit | None:
    place = draw.randrange(len(scene.items))
    if kind == "remove":
        return Edit(kind, scene, without_item(scene, place), place)
    offered = new_colours if kind == "recolour" else new_products
    names = (offered(scene, place, unseen=True) if unseen else []) or offered(scene, place, unseen=False)
    if not names:
        return None
    field = "colour" if kind == "recolour" else "product"
    return Edit(kind, scene, with_item(scene, place, **{field: draw.choice(names)}), place)


def _tag_edit(draw: random.Random, scene: Scene, kind: str) -> Edit | None:
    if (kind == "tag_add") == (scene.tag is not None):
        return None
    if kind == "tag_remove":
        return Edit(kind, scene, replace(scene, tag=None))
    side = scene.tag.side if scene.tag else draw.choice(SIDES)
    text = draw.choice([text for text in TAGS if scene.tag is None or text != scene.tag.text])
    return Edit(kind, scene, replace(scene, tag=Tag(text, side)))


def alternatives(edit: Edit) -> Iterator[Scene]:
    """Yield every card that an edit of this kind could have ended at, the card as it was among them.

    For an item: each colour, or product, or absence, of *each* item, so that the wrong object is an
    alternative; for a tag: each text, on each side where one is added, and none.
    """
    before = edit.before
    places = range(len(before.items))
    yield before
    if edit.kind == "recolour":
        yield from (with_item(before, place, colour=colour) for place in places for colour in COLOURS)
    elif edit.kind == "replace":
        yield from (with_item(before, place, product=name) for place in places for name in PRODUCTS)
    elif edit.kind == "remove":
        yield from (without_item(before, place) for place in places)
        yield replace(before, items=())
    elif edit.kind == "background":
        yield from (replace(before, backdrop=name) for name in BACKDROPS)
    else:
        sides = SIDES if before.tag is None else (before.tag.side,)
        yield replace(before, tag=None)
        yield from (replace(before, tag=Tag(text, side)) for text in TAGS for side in sides)
