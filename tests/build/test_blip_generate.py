"""Exported BLIP bundles write token for token what transformers' ``generate()`` writes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
import torch

from tests.build import blip_generating as generating
from tests.build.blip_checkpoints import BASE, TINY, Size
from tests.build.photographs import photographs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.build.blip_generating import Feeds, Pair

# fewer for a quick look at the base size, which takes an hour with 50; bundles stay in a folder that is named
N_PICTURES: Final = int(os.environ.get("ANYPORT_N_PICTURES", "50"))
N_BEAMS: Final = (1, 3)
N_MATCHED: Final = 12
LEAST_VARIETY: Final = 0.8  # each of the two best logits would have to move by half of their distance
LEAST_CLEARANCE: Final = 2.0
# facts of verification: exports without a fault stay below 2.2 times the float32 floor
FLOORS: Final = 8

CAPTION, ANSWER, MATCH = (
    "BlipForConditionalGeneration",
    "BlipForQuestionAnswering",
    "BlipForImageTextRetrieval",
)
SIZES: Final = [pytest.param(TINY, id="tiny"), pytest.param(BASE, id="base", marks=pytest.mark.slow)]
ARCHITECTURES: Final = {"caption": CAPTION, "prompted": CAPTION, "question": ANSWER}

torch.set_num_threads(1)  # networks this small only wait for each other's threads


@dataclass(slots=True)
class Workshop:
    """Where checkpoints and bundles lie, the pictures, and the models that are open; each is made once."""

    folder: Path
    pictures: list[Path]
    made: dict[tuple[str, str], Pair] = field(default_factory=dict)

    def pair(self, architecture: str, size: Size) -> Pair:
        key = (architecture, size.name)
        if key not in self.made:
            self.made[key] = generating.Pair.of(architecture, size, self.folder)
        return self.made[key]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    named = os.environ.get("ANYPORT_BLIP_FOLDER")
    folder = Path(named) if named else tmp_path_factory.mktemp("blip")
    folder.mkdir(parents=True, exist_ok=True)
    found = Workshop(folder, photographs(tmp_path_factory.mktemp("pictures"), N_PICTURES))
    yield found
    for pair in found.made.values():
        pair.exported.task.close()


@pytest.fixture
def show(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Put figures where `pytest -s` and the report of a test run show them."""

    def shown(figures: str) -> None:
        print(figures)  # noqa: T201  (its answer)
        record_property("figures", figures)

    return shown


@pytest.mark.parametrize(("kind", "n_beams"), [(kind, n) for kind in ARCHITECTURES for n in N_BEAMS])
@pytest.mark.parametrize("size", SIZES)
def test_tokens_are_those_of_generate(
    workshop: Workshop, size: Size, kind: str, n_beams: int, show: Callable[[str], None]
) -> None:
    pair, pictures = workshop.pair(ARCHITECTURES[kind], size), workshop.pictures
    found = generating.compare(pair, pictures, kind, n_beams)
    show(f"{size.name}, {kind}, {n_beams} beams: {found}")
    assert found.singles == found.expected, str(found)
    assert found.batch == found.singles, str(found)
    assert found.n_long >= LEAST_VARIETY * len(pictures), str(found)
    assert found.clearance > LEAST_CLEARANCE, str(found)


# ── the comparison can fail ────────────────────────────────────────────────────────────────────────────


def _swapped(feeds: Feeds) -> Feeds:
    return feeds | {"pixel_values": np.ascontiguousarray(feeds["pixel_values"][::-1])}


def _shifted(feeds: Feeds) -> Feeds:
    return feeds | {"position_ids": feeds["position_ids"] + 1}


def _without_cross_mask(feeds: Feeds) -> Feeds:
    return feeds | {"cross_mask": np.ones_like(feeds["cross_mask"])}


def _without_prompt_mask(feeds: Feeds) -> Feeds:
    return feeds | {"attention_mask": np.ones_like(feeds["attention_mask"])}


MISTAKES: Final[dict[str, tuple[str, Callable[[Feeds], Feeds], tuple[str, ...]]]] = {
    "pictures swapped": ("vision_encoder", _swapped, ("caption", "prompted", "question")),
    "positions shifted": ("text_decoder", _shifted, ("caption", "prompted", "question")),
    "mask of padded questions dropped": ("text_decoder", _without_cross_mask, ("question",)),
    "mask of padded prompts dropped": ("text_decoder", _without_prompt_mask, ("prompted",)),
}


PLANTED: Final = [
    (mistake, kind, n) for mistake in MISTAKES for kind in MISTAKES[mistake][2] for n in N_BEAMS
]


@pytest.mark.parametrize("planted", PLANTED, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_a_mistake_breaks_equality(
    workshop: Workshop, size: Size, planted: tuple[str, str, int], show: Callable[[str], None]
) -> None:
    mistake, kind, n_beams = planted
    pair, some = workshop.pair(ARCHITECTURES[kind], size), workshop.pictures[: size.n_spoiled]
    about = generating.texts(kind, len(some))
    expected = [
        pair.reference.write(path, text, n_beams, size.max_new_tokens).tokens
        for path, text in zip(some, about, strict=True)
    ]
    assert pair.exported.write(some, about, n_beams, size.max_new_tokens) == expected
    part, spoil, _ = MISTAKES[mistake]
    with pair.exported.spoilt(part, spoil):
        wrong = pair.exported.write(some, about, n_beams, size.max_new_tokens)
    n_left = generating.n_equal(wrong, expected)
    show(f"{size.name}, {kind}, {n_beams} beams, {mistake}: {n_left} of {len(some)} are left equal")
    assert n_left < len(some)


# ── matching ───────────────────────────────────────────────────────────────────────────────────────────


def _matched(reference: generating.Reference, paths: list[Path], about: list[str]) -> np.ndarray:
    return np.array([reference.match(path, text) for path, text in zip(paths, about, strict=True)])


@pytest.mark.parametrize("size", SIZES)
def test_matches_are_those_of_transformers(
    workshop: Workshop, size: Size, show: Callable[[str], None]
) -> None:
    """The tolerance is what float32 itself costs: PyTorch's distance from its own float64 twin, times 8."""
    pair, paths = workshop.pair(MATCH, size), workshop.pictures[:N_MATCHED]
    about = generating.texts("question", len(paths))
    matcher = pair.exported.task
    expected = _matched(pair.reference, paths, about)
    twin = generating.Reference(MATCH, generating.checkpoint(MATCH, size, workshop.folder))
    twin.model.double()
    floors = np.abs(expected - _matched(twin, paths, about)).max(axis=0)
    allowed = FLOORS * np.maximum(floors, 2.0**-23 * np.abs(expected).max(axis=0))
    found = np.array([(one.score, one.similarity) for one in matcher.match(paths, about)])
    errors = np.abs(found - expected).max(axis=0)
    gaps = np.diff(np.sort(expected, axis=0), axis=0).min(axis=0)  # between the two pairs most alike
    figures = (
        f"{size.name}, ITM and ITC: errors {errors}, allowed {allowed}, floors {floors}, least gaps {gaps}"
    )
    show(figures)
    assert (errors <= allowed).all(), figures
    assert (gaps > 2 * allowed).all(), figures
    matcher.encoders.remembered.forget()
    with pair.exported.spoilt("vision_encoder", _swapped):
        swapped = np.array([(one.score, one.similarity) for one in matcher.match(paths, about)])
    matcher.encoders.remembered.forget()
    assert (np.abs(swapped - expected) > allowed).all(), figures
