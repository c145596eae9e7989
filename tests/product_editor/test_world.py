"""The world of product cards: drawn again it is the same, and what is held out stays out."""

from __future__ import annotations

import random

import numpy as np
import pytest
from drawing import CANVAS, TAG_RED, render
from edits import KINDS, alternatives, any_edit
from families import family
from silhouettes import SILHOUETTES
from wording import LANGUAGES, instruction
from world import BACKDROPS, COLOURS, PRODUCTS, STYLES, TAGS, Item, Scene, Tag, any_scene, held_out


def test_what_is_held_out_is_little_and_leaves_every_product_and_colour() -> None:
    pairs = {(product, colour) for product in PRODUCTS for colour in COLOURS}
    out = {pair for pair in pairs if held_out(*pair)}
    assert 0.08 < len(out) / len(pairs) < 0.2
    assert {product for product, _ in out} == set(PRODUCTS)
    assert {product for product, _ in pairs - out} == set(PRODUCTS)
    assert {colour for _, colour in pairs - out} == set(COLOURS)


@pytest.mark.parametrize("verb", ["recolour", "remove", "replace"])
def test_some_more_is_held_out_for_each_verb(verb: str) -> None:
    pairs = [(product, colour) for product in PRODUCTS for colour in COLOURS if not held_out(product, colour)]
    more = [pair for pair in pairs if held_out(*pair, verb)]
    assert 0 < len(more) < len(pairs) / 4


@pytest.mark.parametrize("unseen", [False, True])
def test_a_scene_shows_an_unseen_pair_if_one_is_asked_for(unseen: bool) -> None:
    draw = random.Random(1)
    for _ in range(200):
        scene = any_scene(draw, unseen=unseen)
        assert any(held_out(item.product, item.colour) for item in scene.items) == unseen


def test_families_hold_nothing_that_is_held_out_and_every_link_is_an_edit() -> None:
    draw, kinds = random.Random(2), set()
    for _ in range(200):
        drawn = family(draw)
        assert not any(held_out(item.product, item.colour) for scene in drawn.scenes for item in scene.items)
        for link in drawn.links:
            edit = drawn.edit(link)
            assert edit.before != edit.after
            kinds.add(edit.kind)
            if edit.place is not None:
                item = (edit.before if edit.kind == "remove" else edit.after).items[edit.place]
                assert not held_out(item.product, item.colour, edit.kind)
    assert kinds == set(KINDS)


def test_the_same_seed_draws_the_same_family() -> None:
    assert family(random.Random("a")) == family(random.Random("a")) != family(random.Random("b"))


@pytest.mark.parametrize("kind", KINDS)
def test_before_and_after_are_among_the_alternatives(kind: str) -> None:
    draw, n_edits = random.Random(3), 0
    while n_edits < 50:
        edit = any_edit(draw, any_scene(draw), kind)
        if edit:
            others = list(alternatives(edit))
            assert edit.before in others
            assert edit.after in others
            n_edits += 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_instruction_has_one_right_answer(language: str) -> None:
    draw = random.Random(4)
    for _ in range(30):
        scene, answers = any_scene(draw), {}
        for _ in range(150):
            edit = any_edit(draw, scene, draw.choice(KINDS))
            if edit:
                answers.setdefault(instruction(draw, edit, language), set()).add(edit.after)
        assert all(len(after) == 1 for after in answers.values())


def test_every_word_of_the_world_can_be_said() -> None:
    draw, said = random.Random(5), {language: set[str]() for language in LANGUAGES}
    for _ in range(4000):
        edit = any_edit(draw, any_scene(draw), draw.choice(KINDS))
        if edit:
            for language in LANGUAGES:
                said[language].add(instruction(draw, edit, language))
    names = [*PRODUCTS.values(), *(name for name, _ in (*COLOURS.values(), *BACKDROPS.values()))]
    for language in LANGUAGES:
        together = "\n".join(said[language])
        assert all(getattr(name, language) in together for name in names)
        assert all(tag in together for tag in TAGS)


def test_a_card_shows_its_colours_and_is_the_same_at_every_side() -> None:
    for product in PRODUCTS:
        card = render(Scene("grey", "plain", (Item(product, "red", 0.5, 0.9, 0.5),)), CANVAS)
        for colour in (COLOURS["red"][1], BACKDROPS["grey"][1]):
            assert np.all(card == colour, axis=-1).mean() > 0.01
        blocks = card.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
        small = render(Scene("grey", "plain", (Item(product, "red", 0.5, 0.9, 0.5),)), 64)
        assert np.abs(blocks - small).max() <= 1


@pytest.mark.parametrize("text", TAGS)
def test_each_tag_is_written_on_its_side(text: str) -> None:
    blank = render(Scene("grey", "plain", ()), CANVAS)
    left, right = (render(Scene("grey", "plain", (), Tag(text, side)), CANVAS) for side in ("left", "right"))
    for card in (left, right):
        assert np.all(card == TAG_RED, axis=-1).any()
        assert np.all(card[8:57] == 255, axis=-1).sum() > 100  # the letters
    half = CANVAS // 3
    assert np.array_equal(left[:, -half:], blank[:, -half:])
    assert np.array_equal(right[:, :half], blank[:, :half])


def test_styles_differ_and_every_product_has_a_silhouette() -> None:
    cards = [render(Scene("mint", style, ())) for style in STYLES]
    assert all(not np.array_equal(one, other) for one in cards for other in cards if one is not other)
    assert set(SILHOUETTES) == set(PRODUCTS)
