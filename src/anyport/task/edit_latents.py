"""Latents: as pictures of channels, and as the tokens of the transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from anyport.errors import InputError

if TYPE_CHECKING:
    from anyport.task.edit_settings import LatentSettings
    from anyport.task.edit_sizes import Size


def pack(latent: np.ndarray, patch: int) -> np.ndarray:
    """Return float[batch, tokens, channels * patch * patch] of float[batch, channels, height, width].

    From diffusers: ``_pack_latents``.
    """
    batch, channels, height, width = latent.shape
    blocks = latent.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return np.ascontiguousarray(blocks.transpose(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * patch**2))


def unpack(tokens: np.ndarray, size: Size, settings: LatentSettings) -> np.ndarray:
    """Return float[batch, channels, height, width] of tokens; undoes `pack`.

    Args:
        tokens: float[batch, tokens, channels * patch * patch].
        size: Width and height of the picture, in pixels.
        settings: Checked.
    """
    patch = settings.patch
    columns, rows = (side // settings.pixels_per_token for side in size)
    blocks = tokens.reshape(len(tokens), rows, columns, settings.channels, patch, patch)
    latent = blocks.transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(latent.reshape(len(tokens), settings.channels, rows * patch, columns * patch))


def token_grid(size: Size, settings: LatentSettings) -> tuple[int, int]:
    """Return rows and columns of tokens of a picture of this width and height."""
    return size[1] // settings.pixels_per_token, size[0] // settings.pixels_per_token


def drawn_latents(seed: int, size: Size, settings: LatentSettings) -> np.ndarray:
    """Draw the noise that an answer begins with, from numpy's generator: not the numbers of PyTorch.

    Returns:
        float32[1, tokens, token width]; the same for the same seed and size on every machine.
    """
    rows, columns = token_grid(size, settings)
    random = np.random.default_rng(seed)
    return random.standard_normal((1, rows * columns, settings.token_width), np.float32)


def given_latents(latents: np.ndarray, size: Size, settings: LatentSettings) -> np.ndarray:
    """Check latents that a user gives, in the packed form that diffusers' pipeline takes as ``latents``.

    Returns:
        float32[1, tokens, token width].

    Raises:
        InputError: They have another shape or type, or are not all finite.
    """
    rows, columns = token_grid(size, settings)
    wanted = (1, rows * columns, settings.token_width)
    if not isinstance(latents, np.ndarray):
        raise InputError(f"latents are a {type(latents).__name__}, not a numpy array")
    if latents.shape != wanted or latents.dtype.kind != "f":
        raise InputError(
            f"latents are {latents.dtype}{list(latents.shape)}, "
            f"an answer of {size[0]} x {size[1]} begins with float32{list(wanted)}",
            do="give packed latents, as diffusers takes them, or another size",
        )
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(latents, np.float32)
    n_bad = int(found.size - np.isfinite(found).sum())
    if n_bad:
        raise InputError(f"latents hold {n_bad} numbers that are not finite in float32")
    return found
