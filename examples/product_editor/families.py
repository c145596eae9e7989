"""Families of cards: a card and ten others, one edit away; every edit between two is an example."""

import random
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Final

from edits import Edit, new_colours, new_products, with_item, without_item
from world import BACKDROPS, SIDES, TAGS, Scene, Tag, any_scene, held_out

N_OTHERS: Final = 2  # cards per kind beside the first one


@dataclass(frozen=True, slots=True)
class Link:
    """An edit between two cards of a family, by their numbers; `place` as in Edit."""

    kind: str
    before: int
    after: int
    place: int | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """Cards and the edits between them; no combination that is held out of training."""

    scenes: tuple[Scene, ...]
    links: tuple[Link, ...]

    def edit(self, link: Link) -> Edit:
        """Return the edit that a link stands for."""
        return Edit(link.kind, self.scenes[link.before], self.scenes[link.after], link.place)


def family(draw: random.Random) -> Family:
    """Draw a family; an item is removed from every card that differs in that item alone.

    Example:
        >>> drawn = family(random.Random(0))
        >>> all(drawn.edit(link).before != drawn.edit(link).after for link in drawn.links)
        True
    """
    first = any_scene(draw)
    scenes, links = [first], []
    for kind in ("recolour", "replace"):
        place = draw.randrange(len(first.items))
        ring = [0, *_append(scenes, _other_items(draw, first, kind, place))]
        links += [
            Link(kind, one, two, place)
            for one, two in permutations(ring, 2)
            if _trained(scenes[two], kind, place)
        ]
    ring = [0, *_append(scenes, _other_backdrops(draw, first))]
    links += [Link("background", one, two) for one, two in permutations(ring, 2)]
    ring = [0, *_append(scenes, _other_tags(draw, first))]
    links += [Link(_tag_kind(scenes[one], scenes[two]), one, two) for one, two in permutations(ring, 2)]
    for place in range(len(first.items)):
        bare = without_item(first, place)
        fuller = [number for number, scene in enumerate(scenes) if _drops_to(scene, place, bare)]
        (end,) = _append(scenes, [bare])
        links += [
            Link("remove", number, end, place)
            for number in fuller
            if _trained(scenes[number], "remove", place)
        ]
    return Family(tuple(scenes), tuple(links))


def _append(scenes: list[Scene], more: list[Scene]) -> range:
    scenes += more
    return range(len(scenes) - len(more), len(scenes))


def _trained(scene: Scene, verb: str, place: int) -> bool:
    """Tell whether training may use this verb on the item: for a removal as it was, else as it becomes."""
    item = scene.items[place]
    return not held_out(item.product, item.colour, verb)


def _drops_to(scene: Scene, place: int, bare: Scene) -> bool:
    return len(scene.items) > len(bare.items) and without_item(scene, place) == bare


def _other_items(draw: random.Random, first: Scene, kind: str, place: int) -> list[Scene]:
    recolour = kind == "recolour"
    names = (new_colours if recolour else new_products)(first, place, unseen=False)
    drawn = draw.sample(names, min(N_OTHERS, len(names)))
    return [with_item(first, place, **{"colour" if recolour else "product": name}) for name in drawn]


def _other_backdrops(draw: random.Random, first: Scene) -> list[Scene]:
    names = draw.sample([name for name in BACKDROPS if name != first.backdrop], N_OTHERS)
    return [replace(first, backdrop=name) for name in names]


def _other_tags(draw: random.Random, first: Scene) -> list[Scene]:
    """Return the card with two other tags, or with another and with none."""
    side = first.tag.side if first.tag else draw.choice(SIDES)
    texts = draw.sample([text for text in TAGS if first.tag is None or text != first.tag.text], N_OTHERS)
    tags = [Tag(text, side) for text in texts]
    return [replace(first, tag=tag) for tag in ([tags[0], None] if first.tag else tags)]


def _tag_kind(before: Scene, after: Scene) -> str:
    if after.tag is None:
        return "tag_remove"
    return "tag_change" if before.tag else "tag_add"
