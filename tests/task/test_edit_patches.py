"""Pixel values, against the processors of diffusers and transformers."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from anyport.task.edit_patches import grid_of, vae_pixels, vision_patches
from anyport.task.edit_settings import EditPictureSettings
from anyport.task.edit_sizes import picture_sizes

SETTINGS = EditPictureSettings(
    mean=[0.48145466, 0.4578275, 0.40821073], std=[0.26862954, 0.26130258, 0.27577711]
)
SIZES = [(37, 53), (400, 100), (640, 427), (1, 1), (30, 30), (90, 1000)]


def drawn(size: tuple[int, int]) -> Image.Image:
    random = np.random.default_rng(size)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8))


@pytest.mark.parametrize("size", SIZES)
def test_what_the_vae_sees_is_that_of_diffusers(size: tuple[int, int]) -> None:
    picture = drawn(size)
    width, height = picture_sizes(size, SETTINGS, "a").vae
    wanted = VaeImageProcessor(vae_scale_factor=16).preprocess(picture, height, width).numpy()
    found = vae_pixels(picture, (width, height))
    assert (found.dtype, found.shape) == (np.float32, (1, 3, height, width))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("size", SIZES)
def test_patches_are_those_of_transformers(size: tuple[int, int]) -> None:
    picture = drawn(size)
    sizes = picture_sizes(size, SETTINGS, "a")
    width, height = sizes.condition
    condition = VaeImageProcessor(vae_scale_factor=16).resize(picture, height, width)
    wanted = Qwen2VLImageProcessorPil()(condition, return_tensors="np")
    found = vision_patches(picture, sizes, SETTINGS)
    assert [(1, *grid_of(sizes, SETTINGS))] == [tuple(grid) for grid in wanted["image_grid_thw"].tolist()]
    assert (found.dtype, found.shape) == (np.float32, wanted["pixel_values"].shape)
    assert np.abs(found - wanted["pixel_values"]).max() < 1e-6
