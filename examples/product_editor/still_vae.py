"""The VAE of Qwen-Image for one frame: what training needs, twice as fast, and the same pictures.

A picture is a video of one frame. The causal 3-D convolutions of `AutoencoderKLQwenImage` then see zeros in
the past, so that of a kernel [out, in, 3, height, width] only the last slice in time counts. Training holds
that slice alone and computes 2-D convolutions; `inflate` writes zeros for the past and gives the class its
shapes back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from diffusers import AutoencoderKLQwenImage
from diffusers.models.autoencoders import autoencoder_kl_qwenimage as stock
from torch import Tensor, nn
from torch.nn import functional

N_CHANNELS: Final = 16  # of a latent
DOWN: Final = 8  # pixels of a side per latent


def new_vae() -> AutoencoderKLQwenImage:
    """Return an untrained VAE in its stock shape: 1.85 M parameters, 0.67 M of them used by single frames."""
    return AutoencoderKLQwenImage(
        base_dim=8,
        dim_mult=[1, 2, 4, 8],
        num_res_blocks=1,
        z_dim=N_CHANNELS,
        temperal_downsample=[False, False, False],
        latents_mean=[0.0] * N_CHANNELS,
        latents_std=[1.0] * N_CHANNELS,
    )


def deflate(vae: AutoencoderKLQwenImage, *, gain: float = 1.0) -> AutoencoderKLQwenImage:
    """Cut every kernel to its last slice in time, in place, times `gain` (3 ** 0.5 for a fresh one)."""
    for convolution in _causal(vae):
        kernel = convolution.weight.detach()
        convolution.weight = nn.Parameter(kernel[:, :, -1:] * (gain if kernel.shape[2] > 1 else 1.0))
    return vae


def inflate(vae: AutoencoderKLQwenImage) -> AutoencoderKLQwenImage:
    """Give every kernel its three slices in time back, in place: the past is zeros."""
    for convolution in _causal(vae):
        now = convolution.weight.detach()
        if now.shape[2:] == (1, 3, 3):
            past = now.new_zeros(*now.shape[:2], 2, 3, 3)
            convolution.weight = nn.Parameter(torch.cat((past, now), dim=2))
    return vae


def _causal(vae: AutoencoderKLQwenImage) -> Iterator[Any]:
    return (module for module in vae.modules() if isinstance(module, stock.QwenImageCausalConv3d))


@contextmanager
def one_frame() -> Iterator[None]:
    """Let the classes compute single frames in two dims while the context lasts; kernels in both forms."""
    stocked = (stock.QwenImageCausalConv3d.forward, stock.QwenImageRMS_norm.forward)
    stock.QwenImageCausalConv3d.forward = _convolve
    stock.QwenImageRMS_norm.forward = _normalise
    try:
        yield
    finally:
        stock.QwenImageCausalConv3d.forward, stock.QwenImageRMS_norm.forward = stocked


def _convolve(self: stock.QwenImageCausalConv3d, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    """Convolve [batch, channels, 1, height, width] with the kernel of the present."""
    del cache_x
    columns, _, rows, _, _, _ = self._padding
    kernel = self.weight[:, :, -1]
    return functional.conv2d(x[:, :, 0], kernel, self.bias, self.stride[1:], (rows, columns)).unsqueeze(2)


def _normalise(self: stock.QwenImageRMS_norm, x: Tensor) -> Tensor:
    normalised: Tensor = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-24) * self.gamma
    return normalised


def encode(vae: AutoencoderKLQwenImage, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log variance of the latents, as the VAE has them: not normalised.

    Args:
        vae: Inside `one_frame()`.
        pictures: float32[batch, 3, height, width], -1..1.

    Returns:
        Twice float32[batch, 16, height / 8, width / 8].
    """
    mean, log_variance = vae.quant_conv(vae.encoder(pictures.unsqueeze(2)))[:, :, 0].chunk(2, 1)
    return mean, log_variance.clamp(-20, 5)


def decode(vae: AutoencoderKLQwenImage, latents: Tensor) -> Tensor:
    """Return float32[batch, 3, height, width], about -1..1, of latents that are not normalised."""
    pictures: Tensor = vae.decoder(vae.post_quant_conv(latents.unsqueeze(2)))[:, :, 0]
    return pictures
