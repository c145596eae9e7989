"""Masks and boxes: which pixels and which tokens may change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from anyport.errors import InputError, UsageError
from anyport.task.edit_region import box_from, free_tokens, pasted, region_of_box, region_of_mask

if TYPE_CHECKING:
    from pathlib import Path

random = np.random.default_rng(0)


def test_a_box_is_a_region() -> None:
    region = region_of_box((1, 2, 4, 3), (5, 4))
    assert region.shape == (4, 5)
    assert np.argwhere(region).tolist() == [[2, 1], [2, 2], [2, 3]]
    assert region_of_box((0, 0, 5, 4), (5, 4)).all()


@pytest.mark.parametrize("box", [(0, 0, 6, 4), (0, 0, 0, 4), (3, 0, 2, 4), (-1, 0, 2, 4), (0, 3, 2, 3)])
def test_a_box_that_does_not_lie_in_the_picture_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError) as caught:
        region_of_box(box, (5, 4))
    listed = ",".join(map(str, box))
    assert caught.value.what == f"the box {listed} does not lie in the picture of 5 x 4 pixels"


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,2,3,4", "-1,2,3,4"])
def test_a_box_is_four_whole_numbers(text: str) -> None:
    with pytest.raises(UsageError, match=f"the box '{text}' is not understood"):
        box_from(text)


def test_a_mask_is_white_where_something_may_change() -> None:
    grey = np.array([[0, 127, 128, 255]], np.uint8)
    assert region_of_mask(grey, (4, 1)).tolist() == [[False, False, True, True]]
    colours = Image.fromarray(np.stack([grey] * 3, axis=-1))
    assert region_of_mask(colours, (4, 1)).tolist() == [[False, False, True, True]]


def test_a_mask_drawn_in_transparency_is_refused(tmp_path: Path) -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1:3, 1:3, 3] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for given in (tmp_path / "mask.png", (tmp_path / "mask.png").read_bytes(), Image.fromarray(mask)):
        with pytest.raises(InputError, match="has transparency, which says nothing of what may change"):
            region_of_mask(given, (4, 4))
    mask[..., 3], mask[0, 0, :3] = 255, 255
    Image.fromarray(mask).save(tmp_path / "opaque.png")
    assert region_of_mask(tmp_path / "opaque.png", (4, 4)).sum() == 1


@pytest.mark.parametrize("shape", [(16, 16), (5, 7), (100, 33), (1, 1)])
@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (13, 15), (40, 3)])
def test_a_token_is_free_if_any_pixel_under_it_is(shape: tuple[int, int], grid: tuple[int, int]) -> None:
    for _ in range(5):
        region = random.random(shape) < 0.05
        found = free_tokens(region, grid).reshape(grid)
        for row in range(grid[0]):
            for column in range(grid[1]):
                assert found[row, column] == any(
                    _overlap(y, row, shape[0], grid[0]) and _overlap(x, column, shape[1], grid[1])
                    for y, x in np.argwhere(region)
                )


def _overlap(pixel: int, token: int, n_pixels: int, n_tokens: int) -> bool:
    """Say whether the intervals of a pixel and a token have more than an edge in common."""
    return bool(pixel * n_tokens < (token + 1) * n_pixels and (pixel + 1) * n_tokens > token * n_pixels)


def test_outside_the_region_every_bit_is_the_originals() -> None:
    answer, original = (random.integers(0, 256, (9, 8, 3), np.uint8) for _ in range(2))
    region = random.random((9, 8)) < 0.5
    found = np.asarray(pasted(Image.fromarray(answer), Image.fromarray(original), region))
    assert np.array_equal(found[region], answer[region])
    assert np.array_equal(found[~region], original[~region])
