"""The 2-D autoencoder of single pictures is the causal 3-D one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from anyport.recipe.qwen_edit_vae import VaeDecoder, VaeEncoder, single_frame
from tests.recipe.qwen_folders import SIZES, make_vae

CLOSE = {"rtol": 1e-5, "atol": 2e-5}
SHAPES = [(1, 16, 16), (2, 32, 80), (3, 96, 64), (1, 16, 256)]


@pytest.fixture(scope="module", name="vae")
def _vae() -> Any:
    return make_vae(SIZES["tiny"])


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def per_channel(values: Any) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_latents_are_those_of_the_pipeline(vae: Any, shape: tuple[int, int, int]) -> None:
    """With the cache loop of ``encode``, as the pipeline calls it."""
    batch, height, width = shape
    image = noise(batch, 3, height, width).clamp(-1, 1)
    mode = vae.encode(image[:, :, None]).latent_dist.mode()[:, :, 0]
    expected = (mode - per_channel(vae.config.latents_mean)) / per_channel(vae.config.latents_std)
    found = VaeEncoder(vae).eval()(image)
    assert found.shape == (batch, 16, height // 8, width // 8)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert expected.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_pictures_are_those_of_the_pipeline(vae: Any, shape: tuple[int, int, int]) -> None:
    batch, height, width = shape
    latent = noise(batch, 16, height // 8, width // 8)
    scaled = latent / (1.0 / per_channel(vae.config.latents_std)) + per_channel(vae.config.latents_mean)
    expected = vae.decode(scaled[:, :, None]).sample[:, :, 0]
    found = VaeDecoder(vae).eval()(latent)
    assert found.shape == (batch, 3, height, width)
    torch.testing.assert_close(found.clamp(-1, 1), expected, **CLOSE)
    assert 0.1 < expected.std() < 0.9, "a picture that is nearly constant, or all clamped, shows nothing"


def test_the_autoencoder_itself_is_not_changed(vae: Any) -> None:
    before = {name: weight.clone() for name, weight in vae.state_dict().items()}
    kinds = [type(module) for module in vae.modules()]
    folded = single_frame(vae.decoder)
    assert [type(module) for module in vae.modules()] == kinds
    after = vae.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(isinstance(module, nn.Conv3d) for module in folded.modules())
    n_bytes = sum(weight.numel() for weight in folded.parameters())
    assert n_bytes < sum(weight.numel() for weight in vae.decoder.parameters()) / 2


@torch.no_grad()
def test_the_first_tap_would_show(vae: Any) -> None:
    """What the tests above could miss: another tap of the kernels is another picture."""
    latent = noise(1, 16, 4, 6)
    decoder = VaeDecoder(vae).eval()
    right = decoder(latent)
    kernel = vae.decoder.conv_in.weight
    decoder.decoder.conv_in.weight.copy_(kernel[:, :, 0])
    assert (decoder(latent) - right).abs().max() > 1e-2


def test_training_mode_is_kept(vae: Any) -> None:
    assert not any(module.training for module in VaeEncoder(vae).eval().modules())
    assert not any(module.training for module in single_frame(vae.encoder).modules())
