"""Pictures become pixel values: for the vision encoder in patches, for the VAE as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from anyport.task.edit_settings import EditPictureSettings
    from anyport.task.edit_sizes import PictureSizes, Size


def vae_pixels(picture: Image.Image, size: Size) -> np.ndarray:
    """Return float32[1, 3, height, width] from -1 to 1, resized as diffusers' VaeImageProcessor does.

    Args:
        picture: Of mode ``RGB``.
        size: Width and height.
    """
    resized = picture.resize(size, Image.Resampling.LANCZOS)
    scaled = np.asarray(resized).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray((2 * scaled - 1).transpose(2, 0, 1)[None])


def vision_patches(picture: Image.Image, sizes: PictureSizes, settings: EditPictureSettings) -> np.ndarray:
    """Return the patches of a picture as transformers' Qwen2VLImageProcessorPil makes them.

    Patches that are merged into one token lie next to each other: by block row, block column, row, column.

    Args:
        picture: Of mode ``RGB``.
        sizes: As `anyport.task.edit_sizes.picture_sizes` gives them.
        settings: Checked.

    Returns:
        float32[patches, 3 * temporal_patch * patch * patch].
    """
    condition = picture.resize(sizes.condition, Image.Resampling.LANCZOS)
    pixels = np.asarray(condition.resize(sizes.patches, Image.Resampling.BICUBIC)).astype(np.float32)
    mean, std = np.array(settings.mean, np.float32), np.array(settings.std, np.float32)
    values = ((pixels * np.float32(1 / 255) - mean) / std).transpose(2, 0, 1)
    side, merge = settings.patch, settings.merge
    high, wide = (n // (side * merge) for n in values.shape[1:])
    blocks = values.reshape(3, high, merge, side, wide, merge, side).transpose(1, 4, 2, 5, 0, 3, 6)
    repeated = np.repeat(blocks[:, :, :, :, :, None], settings.temporal_patch, axis=5)
    return np.ascontiguousarray(repeated.reshape(high * wide * merge**2, -1))


def grid_of(sizes: PictureSizes, settings: EditPictureSettings) -> tuple[int, int]:
    """Return how many rows and columns of patches a picture has."""
    return sizes.patches[1] // settings.patch, sizes.patches[0] // settings.patch
