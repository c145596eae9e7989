"""The VAE in tiles: what diffusers' tiled encoding and decoding give, one tile at a time."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from anyport.errors import InputError, UsageError
from anyport.task.edit_settings import LatentSettings
from anyport.task.edit_tiles import Tiles, in_tiles
from tests.recipe import qwen_folders
from tests.task import qwen_edit
from tests.task.qwen_edit import RUNS, Case, pictures_of, pipeline, psnr, words_of
from tests.task.test_edit import LEAST_DB, how, opened, sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyport.task.edit import ImageEditor

LATENTS = LatentSettings()
SIDE = 64
# heights and widths: one tile in one direction, a last tile of 16 pixels, one shorter than the overlap
SIZES = [(64, 160), (208, 112), (96, 64), (112, 208), (160, 160)]


@cache
def loud_vae(side: int) -> Any:
    """Return an autoencoder whose pictures go beyond black and white; diffusers cuts tiles of this side."""
    vae = qwen_folders.make_vae(qwen_folders.SIZES["tiny"])
    vae.decoder.conv_out.weight.data *= 2
    if side:
        vae.enable_tiling(side, side, side * 3 // 4, side * 3 // 4)
    return vae


def part(name: str, seen: list[tuple[int, ...]]) -> Callable[[np.ndarray], np.ndarray]:
    """Return a part, run by PyTorch, that notes the shapes it is given."""
    model = SimpleNamespace(vae=loud_vae(0))
    given, answer = ("image", "latent") if name == "vae_encoder" else ("latent", "image")

    def run(array: np.ndarray) -> np.ndarray:
        seen.append(array.shape[2:])
        with torch.no_grad():
            return RUNS[name](model, {given: torch.from_numpy(array.copy())})[answer].numpy()

    return run


def noise(*shape: int) -> np.ndarray:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).numpy()


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_encoded_as_diffusers_does_in_tiles(size: tuple[int, int]) -> None:
    image, seen = noise(1, 3, *size).clip(-1, 1), list[tuple[int, ...]]()
    found = in_tiles(part("vae_encoder", seen), image, Tiles.encoding(SIDE, LATENTS))
    whole = part("vae_encoder", [])(image)
    mode = loud_vae(SIDE).encode(torch.from_numpy(image)[:, :, None]).latent_dist.mode()[:, :, 0]
    mean, std = qwen_edit.mean_and_std(loud_vae(SIDE))
    np.testing.assert_allclose(found, (mode - mean) / std, rtol=1e-5, atol=2e-5)
    assert np.abs(found - whole).max() > 1e-3, "a seam of the tiles must show, or the sizes test nothing"
    assert max(max(shape) for shape in seen) == SIDE


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_latents_are_decoded_as_diffusers_does_in_tiles(size: tuple[int, int]) -> None:
    """What lies beyond white is blended before it is cut off."""
    height, width = size[0] // 8, size[1] // 8
    latent, seen = noise(1, 16, height, width), list[tuple[int, ...]]()
    found = in_tiles(part("vae_decoder", seen), latent, Tiles.decoding(SIDE, LATENTS))
    mean, std = qwen_edit.mean_and_std(loud_vae(SIDE))
    scaled = (torch.from_numpy(latent) * std + mean)[:, :, None]
    np.testing.assert_allclose(found, loud_vae(SIDE).decode(scaled).sample[:, :, 0], rtol=1e-5, atol=5e-5)
    assert found.shape == (1, 3, *size)
    assert np.abs(found).max() > 1
    assert max(max(shape) for shape in seen) == SIDE // 8


def test_what_fits_is_not_cut() -> None:
    seen: list[tuple[int, ...]] = []
    image = noise(1, 3, 64, 48)
    whole = part("vae_encoder", [])(image)
    found = in_tiles(part("vae_encoder", seen), image, Tiles.encoding(SIDE, LATENTS))
    assert np.array_equal(found, whole)
    assert seen == [(64, 48)]


def test_the_inside_of_a_tile_is_the_whole_where_nothing_sees_far() -> None:
    """A network that sees its own pixel alone: tiles change nothing but the last bit."""
    image = noise(1, 3, 208, 112)
    tiles = Tiles(SIDE, SIDE)
    np.testing.assert_allclose(in_tiles(lambda x: 2 * x, image, tiles), 2 * image, rtol=1e-6, atol=1e-7)
    assert tiles.sides(208) == {64, 16}


CASE = Case("f", "make it blue", None, 1.0, (240, 208), 2)


def run_in_tiles(task: ImageEditor, side: int, case: Case = CASE) -> tuple[np.ndarray, set[tuple[int, ...]]]:
    """Return the picture, and the shapes that the parts of the VAE saw."""
    seen: set[tuple[int, ...]] = set()
    for name, tensor in (("vae_encoder", "image"), ("vae_decoder", "latent")):
        sessions(task)[name].spoil = lambda feeds, tensor=tensor: seen.add(tuple(feeds[tensor].shape))  # type: ignore[misc]
    found = task.edit(pictures_of(case), case.prompt, how(case, vae_tile=side))
    return found.pixels, seen


def test_the_picture_is_that_of_the_pipeline_with_tiling() -> None:
    pipe = pipeline()
    pipe.vae.enable_tiling(SIDE, SIDE, SIDE * 3 // 4, SIDE * 3 // 4)
    try:
        with qwen_edit.changed(CASE), torch.no_grad():
            wanted = pipe(**words_of(CASE)).images[0]
    finally:
        pipe.vae.disable_tiling()
    with opened(CASE) as task:
        found, seen = run_in_tiles(task, SIDE)
    assert psnr(found, wanted) >= LEAST_DB
    assert psnr(qwen_edit.expected(CASE), wanted) < LEAST_DB
    assert max(max(shape[2:]) for shape in seen if shape[1] == 3) == SIDE
    assert max(max(shape[2:]) for shape in seen if shape[1] == 16) == SIDE // 8


def test_a_bundle_may_say_it() -> None:
    with opened(CASE, latents={"vae_tile": SIDE}) as task:
        assert task.plan(pictures_of(CASE), "x", how(CASE)).vae_tile == SIDE
        assert task.plan(pictures_of(CASE), "x", how(CASE, vae_tile=0)).vae_tile == 0


@pytest.mark.parametrize("side", [-64, 1, 96])
def test_sides_that_are_none(side: int) -> None:
    with opened() as task, pytest.raises(InputError) as caught:
        task.plan(pictures_of(CASE), "x", how(CASE, vae_tile=side))
    assert caught.value.what == f"vae_tile is {side}, it must be a multiple of 64"
    assert caught.value.do == "512 pixels, say; 0: no tiles"


def test_a_setting_that_is_none() -> None:
    with pytest.raises(UsageError) as caught:
        opened(CASE, latents={"vae_tile": 96})
    assert caught.value.what == "settings: latents.vae_tile is 96, it must be a multiple of 64"
