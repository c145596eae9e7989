"""Sizes, against diffusers and transformers."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from anyport.errors import InputError
from anyport.task.edit_settings import EditorSettings, EditPictureSettings, InstructionSettings
from anyport.task.edit_sizes import OutputSize, output_size, picture_sizes, size_for_patches, size_of_area

PICTURE = EditPictureSettings(mean=[0.5] * 3, std=[0.5] * 3)
SETTINGS = EditorSettings(
    text=InstructionSettings(tokenizer="t", before="b", after="a", picture="p {}", image_pad=1),
    picture=PICTURE,
)
random = np.random.default_rng(0)
SIZES = [(int(w), int(h)) for w, h in np.exp(random.uniform(0, 9, (200, 2))).round()]


@pytest.mark.parametrize("area", [384 * 384, 1024 * 1024, 256 * 256])
def test_sizes_of_an_area_are_those_of_diffusers(area: int) -> None:
    for width, height in SIZES:
        assert size_of_area((width, height), area, 32) == calculate_dimensions(area, width / height)


@pytest.mark.parametrize("most", [28 * 28 * 1280, 12_845_056, 40_000])
def test_sizes_for_patches_are_those_of_transformers(most: int) -> None:
    settings = msgspec.structs.replace(PICTURE, max_pixels=most)
    n_compared = 0
    for width, height in SIZES:
        if max(width, height) <= 200 * min(width, height):
            high, wide = smart_resize(height, width, 28, 56 * 56, most)
            assert size_for_patches((width, height), settings) == (wide, high)
            n_compared += 1
    assert n_compared > 100


def test_what_is_seen_of_a_picture() -> None:
    found = picture_sizes((640, 427), PICTURE, "a.png")
    assert (found.condition, found.patches, found.vae) == ((480, 320), (476, 308), (1248, 832))


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (6000, 20)])
def test_a_picture_too_long_and_thin_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError) as caught:
        picture_sizes(size, PICTURE, "a.png")
    assert str(caught.value) == (
        f"a.png is {size[0]} x {size[1]} pixels: it is too long and thin for the model\n"
        "  do:    cut out the part that is meant; the longer side may be 200 times the other"
    )


def test_whatever_is_not_refused_can_be_seen() -> None:
    for size in SIZES:
        if max(size) <= 100 * min(size):
            found = picture_sizes(size, PICTURE, "a")
            assert min(*found.condition, *found.patches, *found.vae) >= 28


@pytest.mark.parametrize(
    ("asked", "computed", "given"),
    [
        (None, (1248, 832), (1248, 832)),
        ((512, 512), (512, 512), (512, 512)),
        ((500, 333), (496, 320), (500, 333)),
        ((16, 16), (16, 16), (16, 16)),
        ((4000, 3000), (2368, 1776), (4000, 3000)),
    ],
)
def test_the_size_of_an_answer(
    asked: tuple[int, int] | None, computed: tuple[int, int], given: tuple[int, int]
) -> None:
    assert output_size(asked, (640, 427), SETTINGS) == OutputSize(computed, given)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((15, 900), "the size 15 x 900 is too small: the model makes 16 pixels or more"),
        ((3_000_000, 20), "the size 3000000 x 20 is too long and thin for the model"),
    ],
)
def test_a_size_that_cannot_be_made_is_refused(asked: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        output_size(asked, (640, 427), SETTINGS)
    assert caught.value.what == message
