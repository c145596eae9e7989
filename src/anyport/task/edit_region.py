"""The region of a picture that may change: a mask or a box."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from anyport.errors import InputError, UsageError
from anyport.task.pictures import has_transparency, read_picture

if TYPE_CHECKING:
    from anyport.task.edit_sizes import Size
    from anyport.task.pictures import Picture

Box = tuple[int, int, int, int]

_MIDDLE: Final = 128
_N_SIDES: Final = 4


def box_from(text: str) -> Box:
    """Read ``LEFT,TOP,RIGHT,BOTTOM``.

    >>> box_from("0,8,100,60")
    (0, 8, 100, 60)

    Raises:
        UsageError: It is not four whole numbers.
    """
    words = text.split(",")
    if len(words) != _N_SIDES or not all(word.strip().isdecimal() for word in words):
        raise UsageError(
            f"the box '{text}' is not understood", do="write --box LEFT,TOP,RIGHT,BOTTOM in pixels"
        )
    left, top, right, bottom = map(int, words)
    return left, top, right, bottom


def region_of_box(box: Box, size: Size) -> np.ndarray:
    """Return bool[height, width], true inside the box.

    Args:
        box: Left, top, right and bottom in pixels; right and bottom lie outside, as in Pillow.
        size: Width and height of the picture.

    Raises:
        InputError: It is empty, or reaches over the edge.
    """
    left, top, right, bottom = box
    if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
        raise InputError(
            f"the box {left},{top},{right},{bottom} does not lie in the picture "
            f"of {size[0]} x {size[1]} pixels",
            do="give LEFT,TOP,RIGHT,BOTTOM with left < right and top < bottom",
        )
    region = np.zeros((size[1], size[0]), np.bool_)
    region[top:bottom, left:right] = True
    return region


def region_of_mask(mask: Picture, size: Size) -> np.ndarray:
    """Return bool[height, width], true where the mask is lighter than the middle.

    Args:
        mask: A picture of the same size; white may change, black stays.
        size: Width and height of the picture.

    Raises:
        InputError: It cannot be read, has another size or transparent places, or is black everywhere.
    """
    name = str(mask) if isinstance(mask, str | Path) else "the mask"
    read = read_picture(mask, name).convert("L")
    if has_transparency(mask):
        raise InputError(
            f"{name} has transparency, which says nothing of what may change",
            do="save it without an alpha channel: white may change, black stays",
        )
    if read.size != size:
        raise InputError(
            f"{name} is {read.width} x {read.height} pixels, the picture is {size[0]} x {size[1]}",
            do="give a mask of the picture's own size",
        )
    region: np.ndarray = np.asarray(read) >= _MIDDLE
    if not region.any():
        raise InputError(f"{name} is black everywhere: nothing may change", do="paint white what may change")
    return region


def free_tokens(region: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return bool[1, tokens, 1]: the tokens in whose square of pixels something may change.

    Args:
        region: bool[height, width] of the picture, of any size.
        grid: Rows and columns of tokens that lie over it.
    """
    sums = np.zeros((region.shape[0] + 1, region.shape[1] + 1), np.int64)
    sums[1:, 1:] = region.cumsum(axis=0).cumsum(axis=1)
    (top, bottom), (left, right) = (_spans(n, size) for n, size in zip(grid, region.shape, strict=True))
    n_inside = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    free: np.ndarray = n_inside > 0
    return free.reshape(1, -1, 1)


def _spans(n_tokens: int, n_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pixel under each token, and the first one behind it."""
    places = np.arange(n_tokens)
    return places * n_pixels // n_tokens, -(-(places + 1) * n_pixels // n_tokens)


def pasted(answer: Image.Image, original: Image.Image, region: np.ndarray) -> Image.Image:
    """Return the original with the answer inside the region: outside, every bit is the original's.

    Args:
        answer: Of mode ``RGB``, as large as the original.
        original: Of mode ``RGB``.
        region: bool[height, width].
    """
    mixed = np.where(region[..., None], np.asarray(answer), np.asarray(original))
    return Image.fromarray(mixed)
