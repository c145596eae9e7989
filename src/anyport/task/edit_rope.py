"""The rotary embedding of the transformer: cosines and sines for pictures and text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.task.edit_settings import RopeSettings


def rope_tables(
    grids: Sequence[tuple[int, int]], n_text: int, settings: RopeSettings
) -> dict[str, np.ndarray]:
    """Return the tables that diffusers' QwenEmbedRope (``scale_rope=True``) holds as complex numbers.

    Picture ``i`` is frame ``i``; its rows and columns count from the middle: half of them are negative.
    The text lies behind the largest half of all pictures.

    Args:
        grids: Rows and columns of tokens: those of the answer, then those of each picture.
        n_text: How many tokens the text has.
        settings: Checked.

    Returns:
        ``img_cos`` and ``img_sin`` float32[latent_tokens, width], ``txt_cos`` and ``txt_sin``
        float32[n_text, width]; width is half of the sum of the axes.
    """
    begin = max(max(rows // 2, columns // 2) for rows, columns in grids)
    text = np.tile(np.arange(begin, begin + n_text), (3, 1))
    pictures = np.concatenate([_places(frame, grid) for frame, grid in enumerate(grids)], axis=1)
    found = {}
    for name, places in (("img", pictures), ("txt", text)):
        angles = _angles(places, settings)
        found[f"{name}_cos"], found[f"{name}_sin"] = np.cos(angles), np.sin(angles)
    return found


def _places(frame: int, grid: tuple[int, int]) -> np.ndarray:
    """Return int64[3, tokens]: frame, row and column of each token of a picture."""
    rows, columns = (np.arange(side) - (side - side // 2) for side in grid)
    axes = np.meshgrid(np.array([frame]), rows, columns, indexing="ij")
    return np.stack(axes).reshape(3, -1)


def _angles(places: np.ndarray, settings: RopeSettings) -> np.ndarray:
    """Return float32[tokens, width]: the power is rounded once, and the rest is float32, as in PyTorch."""
    columns = []
    for place, width in zip(places, settings.axes, strict=True):
        exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
        powers = np.power(settings.theta, exponents.astype(np.float64)).astype(np.float32)
        frequencies = np.float32(1) / powers
        columns.append(np.outer(place.astype(np.float32), frequencies))
    return np.concatenate(columns, axis=1)
