"""Where the tokens of a text with pictures lie, for the rotary embedding of the text encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def plain_positions(n_tokens: int) -> np.ndarray:
    """Return int64[3, 1, tokens]: one after the other, the same for frame, row and column.

    >>> plain_positions(3)[:, 0].tolist()
    [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """
    return np.tile(np.arange(n_tokens, dtype=np.int64), (3, 1, 1))


def multimodal_positions(
    tokens: np.ndarray, grids: Sequence[tuple[int, int]], image_pad: int, merge: int
) -> np.ndarray:
    """Return int64[3, 1, tokens]: the tokens of a picture lie at its rows and columns.

    A picture takes as much room as its longer side. From transformers: ``get_rope_index`` of Qwen2.5-VL.

    >>> multimodal_positions(np.array([5, 9, 9, 6]), [(2, 4)], image_pad=9, merge=2)[:, 0].tolist()
    [[0, 1, 1, 3], [0, 1, 1, 3], [0, 1, 2, 3]]

    Args:
        tokens: int64[tokens].
        grids: Rows and columns of patches of each picture, in their order.
        image_pad: The token that stands for one merged patch.
        merge: How many patches in a row, and in a column, are merged.
    """
    positions = np.zeros((3, len(tokens)), np.int64)
    begin, position, pictures = 0, 0, iter(grids)
    while begin < len(tokens):
        if tokens[begin] != image_pad:
            rest = np.flatnonzero(tokens[begin:] == image_pad)
            n = int(rest[0]) if len(rest) else len(tokens) - begin
            positions[:, begin : begin + n] = position + np.arange(n)
            position += n
        else:
            rows, columns = (side // merge for side in next(pictures))
            n = rows * columns
            positions[:, begin : begin + n] = position + np.indices((1, rows, columns)).reshape(3, -1)
            position += max(rows, columns)
        begin += n
    return positions[:, None]
