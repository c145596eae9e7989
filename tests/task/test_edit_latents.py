"""Latents as tokens, against diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPlusPipeline

from anyport.errors import InputError
from anyport.task.edit_latents import drawn_latents, given_latents, pack, token_grid, unpack
from anyport.task.edit_settings import LatentSettings

SETTINGS = LatentSettings()
SIZES = [(16, 16), (512, 16), (208, 240), (96, 32)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_packing_is_that_of_diffusers(size: tuple[int, int], batch: int) -> None:
    width, height = size
    latent = np.random.default_rng(0).standard_normal((batch, 16, height // 8, width // 8), np.float32)
    wanted = QwenImageEditPlusPipeline._pack_latents(
        torch.from_numpy(latent), batch, 16, height // 8, width // 8
    )
    found = pack(latent, 2)
    assert np.array_equal(found, wanted.numpy())
    back = unpack(found, size, SETTINGS)
    assert np.array_equal(back, latent)
    theirs = QwenImageEditPlusPipeline._unpack_latents(wanted, height, width, 8)
    assert np.array_equal(back, theirs[:, :, 0].numpy())


def test_drawn_latents_are_the_same_everywhere() -> None:
    found = drawn_latents(7, (32, 16), SETTINGS)
    assert (found.dtype, found.shape) == (np.float32, (1, 2, 64))
    assert np.array_equal(found, np.random.default_rng(7).standard_normal((1, 2, 64), np.float32))
    assert found[0, 0, :2].tolist() == [1.5219693183898926, -1.1441057920455933]
    many = drawn_latents(0, (512, 512), SETTINGS)
    assert abs(many.mean()) < 0.01
    assert abs(many.std() - 1) < 0.01


def test_given_latents_are_checked() -> None:
    right = np.zeros((1, 2, 64), np.float64)
    assert token_grid((32, 16), SETTINGS) == (1, 2)
    assert given_latents(right, (32, 16), SETTINGS).dtype == np.float32
    wanted = "an answer of 32 x 16 begins with float32[1, 2, 64]"
    for wrong, message in (
        (right.tolist(), "latents are a list, not a numpy array"),
        (right[:, :1], f"latents are float64[1, 1, 64], {wanted}"),
        (right.astype(np.int64), f"latents are int64[1, 2, 64], {wanted}"),
        (right * np.nan, "latents hold 128 numbers that are not finite in float32"),
        (right + 1e200, "latents hold 128 numbers that are not finite in float32"),
    ):
        with pytest.raises(InputError) as caught:
            given_latents(wrong, (32, 16), SETTINGS)  # type: ignore[arg-type]
        assert caught.value.what == message
