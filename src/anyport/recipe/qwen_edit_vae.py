"""The picture autoencoder of Qwen-Image for single pictures: its causal 3-D convolutions become 2-D ones.

A picture is a video of one frame. In front of its only frame a causal convolution sees zeros, so that of each
3-D kernel the last temporal tap alone counts: a 2-D convolution, which every runtime knows, with a third of
the weights.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

import torch
from torch import Tensor, nn

SINGLE_FRAME: Final = (
    "causal 3-D convolutions are folded to 2-D ones (their last temporal tap): the same for a picture"
)


class VaeEncoder(nn.Module):
    """float32[batch, 3, height, width] in -1..1 -> float32[batch, Z, height//8, width//8], normalised.

    The most likely latents (no noise), less their mean, over their standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder = single_frame(vae.encoder)
        self.quant_conv = single_frame(vae.quant_conv)
        self.n_channels: int = vae.config.z_dim
        self.register_buffer("mean", _per_channel(vae.config.latents_mean), persistent=False)
        self.register_buffer("std", _per_channel(vae.config.latents_std), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the latents of pictures."""
        moments = self.quant_conv(self.encoder(image))
        latents: Tensor = (moments[:, : self.n_channels] - self.mean) / self.std
        return latents


class VaeDecoder(nn.Module):
    """float32[batch, Z, height, width], normalised -> float32[batch, 3, 8*height, 8*width].

    -1 is black and 1 is white; what lies beyond is cut off outside, after tiles are blended, as diffusers'
    ``tiled_decode`` leaves it to the pipeline.
    """

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.post_quant_conv = single_frame(vae.post_quant_conv)
        self.decoder = single_frame(vae.decoder)
        self.register_buffer("mean", _per_channel(vae.config.latents_mean), persistent=False)
        # the pipeline divides by 1 / std, which is not quite a product with std
        self.register_buffer("inverse_std", 1.0 / _per_channel(vae.config.latents_std), persistent=False)

    def forward(self, latent: Tensor) -> Tensor:
        """Return the pictures of latents."""
        image: Tensor = self.decoder(self.post_quant_conv(latent / self.inverse_std + self.mean))
        return image


def single_frame(module: nn.Module) -> nn.Module:
    """Return a copy of a module of the autoencoder that takes pictures where the module takes videos.

    [batch, C, 1, height, width] becomes [batch, C, height, width]; names of weights stay. The module itself
    is not changed.
    """
    return _folded(deepcopy(module))


def _folded(module: nn.Module) -> nn.Module:
    """Fold a module of our own, children first."""
    from diffusers.models.autoencoders import autoencoder_kl_qwenimage as diffusers_vae

    for name, child in list(module.named_children()):
        setattr(module, name, _folded(child))
    if isinstance(module, diffusers_vae.QwenImageCausalConv3d):
        return _last_tap(module)
    if isinstance(module, diffusers_vae.QwenImageRMS_norm):
        module.gamma = nn.Parameter(module.gamma.detach().reshape(-1, 1, 1))
    if isinstance(module, diffusers_vae.QwenImageAttentionBlock):
        return _Attention(module)
    if isinstance(module, diffusers_vae.QwenImageResample):
        # what it does to time is not done to a first frame
        return _Resample(module.resample)
    return module


def _last_tap(convolution: Any) -> nn.Conv2d:
    left, _, top, *_ = convolution._padding  # noqa: SLF001  (the convolution keeps it nowhere else)
    folded = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size[1:],
        convolution.stride[1:],
        (top, left),
        device="meta",
    )
    folded.weight = nn.Parameter(convolution.weight.detach()[:, :, -1].clone())
    folded.bias = nn.Parameter(convolution.bias.detach())
    return folded.train(convolution.training)


class _Resample(nn.Module):
    """float32[batch, C, height, width] -> half or twice the height and width."""

    def __init__(self, resample: nn.Module) -> None:
        super().__init__()
        self.resample = resample
        self.training = resample.training

    def forward(self, x: Tensor) -> Tensor:
        resampled: Tensor = self.resample(x)
        return resampled


class _Attention(nn.Module):
    """float32[batch, C, height, width] -> the same shape; every position attends to every other."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm, self.to_qkv, self.proj = block.norm, block.to_qkv, block.proj
        self.training = block.training

    def forward(self, x: Tensor) -> Tensor:
        positions = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None]
        query, key, value = positions.chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)[:, 0]
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(x.shape))
        return projected + x


def _per_channel(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
