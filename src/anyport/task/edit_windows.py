"""Where the patches of several pictures lie: in their picture, and in the windows of the vision encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def patch_places(grid: tuple[int, int], merge: int) -> np.ndarray:
    """Return int64[patches, 2]: row and column of each patch, those of a token next to each other.

    >>> patch_places((2, 4), 2)[:5].tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2]]

    Args:
        grid: Rows and columns of patches.
        merge: How many in a row, and in a column, become one token.
    """
    rows, columns = grid
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    blocks = places.reshape(rows // merge, merge, columns // merge, merge, 2).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(-1, 2).astype(np.int64)


def window_feeds(grids: Sequence[tuple[int, int]], merge: int, side: int) -> dict[str, np.ndarray]:
    """Return what the vision encoder is told about its patches.

    Windows of ``side`` x ``side`` patches begin at the upper left corner of each picture; those at the right
    and lower edge hold fewer patches, and empty slots. Which patch lies in which slot of its window is free:
    attention does not see it.

    Args:
        grids: Rows and columns of patches of each picture.
        merge: See `patch_places`.
        side: Patches in a row of a window, a multiple of ``merge``.

    Returns:
        ``patch_positions`` int64[patches, 2], ``picture_ids`` int64[patches],
        ``window_patches`` int64[windows, side * side] (0 in an empty slot), ``window_mask`` of that shape,
        ``patch_slots`` int64[patches] (window * side * side + slot).
    """
    positions = [patch_places(grid, merge) for grid in grids]
    windows, n_windows = [], 0
    for grid, places in zip(grids, positions, strict=True):
        n_rows, n_columns = (-(-n // side) for n in grid)
        windows.append(n_windows + places[:, 0] // side * n_columns + places[:, 1] // side)
        n_windows += n_rows * n_columns
    window = np.concatenate(windows)
    order = np.argsort(window, kind="stable")
    begins = np.searchsorted(window[order], np.arange(n_windows))
    slots = np.empty_like(window)
    slots[order] = np.arange(len(window)) - begins[window[order]]
    patch_slots = window * side**2 + slots
    patches, mask = np.zeros(n_windows * side**2, np.int64), np.zeros(n_windows * side**2, np.bool_)
    patches[patch_slots], mask[patch_slots] = np.arange(len(window)), True
    return {
        "patch_positions": np.concatenate(positions),
        "picture_ids": np.repeat(np.arange(len(grids)), [len(one) for one in positions]).astype(np.int64),
        "window_patches": patches.reshape(n_windows, side**2),
        "window_mask": mask.reshape(n_windows, side**2),
        "patch_slots": patch_slots,
    }
