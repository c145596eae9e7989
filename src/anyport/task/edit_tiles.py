"""A large picture through the VAE in overlapping tiles, blended where they overlap.

What diffusers' ``AutoencoderKLQwenImage.tiled_encode`` and ``tiled_decode`` give for tiles of this size with
an overlap of a quarter, with one tile, and strips of its neighbours, in memory at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from anyport.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyport.task.edit_settings import LatentSettings


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tiles of one direction, in and out; a stride is three quarters of a side.

    Attributes:
        side: Of the tiles that go in, which are squares.
        side_out: Of what comes out for one.
    """

    side: int
    side_out: int

    @classmethod
    def encoding(cls, side: int, latents: LatentSettings) -> Self:
        """Return the tiles of pictures with this side in pixels."""
        return cls(side, side // latents.vae_scale)

    @classmethod
    def decoding(cls, side: int, latents: LatentSettings) -> Self:
        """Return the tiles of latents whose pictures have this side."""
        return cls(side // latents.vae_scale, side)

    @property
    def stride(self) -> int:
        """From the beginning of one tile to that of the next."""
        return self.side * 3 // 4

    def sides(self, length: int) -> set[int]:
        """Return which sides tiles have along an axis."""
        return {min(self.side, length - start) for start in range(0, length, self.stride)}


def check_tile(side: int, latents: LatentSettings) -> None:
    """Refuse a side that cannot be cut into four strides.

    Raises:
        InputError: Naming the multiple.
    """
    multiple = 4 * latents.pixels_per_token
    if side < 0 or side % multiple:
        raise InputError(
            f"vae_tile is {side}, it must be a multiple of {multiple}", do="512 pixels, say; 0: no tiles"
        )


def in_tiles(run: Callable[[np.ndarray], np.ndarray], whole: np.ndarray, tiles: Tiles) -> np.ndarray:
    """Return ``run(whole)``, made of tiles.

    Args:
        run: float32[1, C, height, width] -> float32[1, D, height * k, width * k] with
            ``k = side_out / side``.
        whole: float32[1, C, height, width]; both sides are multiples that ``run`` takes.
        tiles: What it is cut into. Where both sides fit into one tile, nothing is cut.
    """
    height, width = whole.shape[2:]
    if max(height, width) <= tiles.side:
        return run(whole)
    side, stride, overlap = tiles.side, tiles.stride, tiles.side_out // 4
    rows: list[np.ndarray] = []
    above: list[np.ndarray] = []  # the last lines of each tile above
    for top in range(0, height, stride):
        row: list[np.ndarray] = []
        below: list[np.ndarray] = []
        left = None  # the last columns of the tile at the left
        for number, start in enumerate(range(0, width, stride)):
            tile = np.array(run(whole[:, :, top : top + side, start : start + side]))
            if above:
                _blend(above[number], tile)
            if left is not None:
                _blend(left.swapaxes(2, 3), tile.swapaxes(2, 3))
            below.append(tile[:, :, -overlap:].copy())
            left = tile[..., -overlap:].copy()
            row.append(tile[:, :, : 3 * overlap, : 3 * overlap].copy())
        above = below
        rows.append(np.concatenate(row, axis=3))
    return np.concatenate(rows, axis=2)


def _blend(before: np.ndarray, tile: np.ndarray) -> None:
    """Let the first lines of a tile come out of the last lines of the one before, bit by bit; in place."""
    n = min(before.shape[2], tile.shape[2])
    weights = (np.arange(n) / n)[:, None]
    old, new = (1 - weights).astype(np.float32), weights.astype(np.float32)
    tile[:, :, :n] = before[:, :, -n:] * old + tile[:, :, :n] * new
