"""Rotary tables, against diffusers' complex numbers."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope

from anyport.task.edit_rope import rope_tables
from anyport.task.edit_settings import RopeSettings

random = np.random.default_rng(0)
GRIDS = [
    [(1, 1), (1, 1)],
    [(13, 15), (16, 16), (8, 31)],
    [(1, 32), (64, 64), (33, 17), (2, 90)],
    *[[(int(h), int(w)) for h, w in random.integers(1, 70, (n, 2))] for n in (2, 3, 4)],
]


@pytest.mark.parametrize("axes", [(16, 56, 56), (8, 12, 12)])
@pytest.mark.parametrize("grids", GRIDS)
def test_tables_are_those_of_diffusers(grids: list[tuple[int, int]], axes: tuple[int, int, int]) -> None:
    rope = QwenEmbedRope(theta=10_000, axes_dim=list(axes), scale_rope=True)
    pictures, text = rope([[(1, *grid) for grid in grids]], max_txt_seq_len=37)
    found = rope_tables(grids, 37, RopeSettings(axes=axes))
    wanted = {
        "img_cos": pictures.real,
        "img_sin": pictures.imag,
        "txt_cos": text.real,
        "txt_sin": text.imag,
    }
    assert found.keys() == wanted.keys()
    for name, table in wanted.items():
        assert (found[name].dtype, found[name].shape) == (np.float32, tuple(table.shape))
        assert np.abs(found[name] - table.numpy()).max() < 2e-7
