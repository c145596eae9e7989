"""Places and windows of patches, against transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from anyport.task.edit_windows import patch_places, window_feeds

random = np.random.default_rng(0)
GRIDS = [
    [(2, 2)],
    [(8, 8)],
    [(22, 34), (14, 22)],
    [(16, 24), (8, 8), (10, 2)],
    *[[(int(2 * h), int(2 * w)) for h, w in random.integers(1, 30, (n, 2))] for n in (1, 2, 3, 3)],
]


@pytest.mark.parametrize("grids", GRIDS)
def test_windows_are_those_of_transformers(grids: list[tuple[int, int]]) -> None:
    sizes = torch.tensor([(1, *grid) for grid in grids])
    found = window_feeds(grids, 2, 8)
    assert np.array_equal(found["patch_positions"], get_vision_position_ids(sizes, 2).numpy())
    order, ends = (one.numpy() for one in get_vision_window_index(sizes, 2, 112, 14))
    patches = (order[:, None] * 4 + np.arange(4)).reshape(-1)
    windows = [row[mask] for row, mask in zip(found["window_patches"], found["window_mask"], strict=True)]
    assert np.array_equal(np.concatenate(windows), patches)
    assert np.array_equal(np.cumsum([0, *map(len, windows)]), ends)


@pytest.mark.parametrize("grids", GRIDS)
def test_every_patch_has_one_slot(grids: list[tuple[int, int]]) -> None:
    found = window_feeds(grids, 2, 8)
    n = sum(rows * columns for rows, columns in grids)
    assert {name: array.dtype for name, array in found.items()} == {
        "patch_positions": np.int64,
        "picture_ids": np.int64,
        "window_patches": np.int64,
        "window_mask": np.bool_,
        "patch_slots": np.int64,
    }
    assert np.array_equal(found["window_patches"].reshape(-1)[found["patch_slots"]], np.arange(n))
    assert found["window_mask"].sum() == n
    assert (found["window_patches"][~found["window_mask"]] == 0).all()
    lengths = [rows * columns for rows, columns in grids]
    assert np.array_equal(np.bincount(found["picture_ids"]), lengths)
    assert (np.diff(found["picture_ids"]) >= 0).all()


def test_patches_of_a_token_lie_together() -> None:
    places = patch_places((4, 6), 2).reshape(-1, 4, 2)
    assert (places // 2 == places[:, :1] // 2).all()
    assert len(np.unique(places.reshape(-1, 2), axis=0)) == 24
