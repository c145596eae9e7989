"""Positions of tokens, against transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyport.task.edit_positions import multimodal_positions, plain_positions
from tests.task import qwen_edit

random = np.random.default_rng(0)
GRIDS = [[(int(2 * h), int(2 * w)) for h, w in random.integers(1, 12, (n, 2))] for n in (0, 1, 2, 3, 3, 3)]


@pytest.mark.parametrize("grids", GRIDS)
@pytest.mark.parametrize("n_text", [1, 7])
def test_positions_are_those_of_transformers(grids: list[tuple[int, int]], n_text: int) -> None:
    model = qwen_edit.pipeline().text_encoder
    pad = model.config.image_token_id
    words = [5] * n_text
    tokens = words + [token for h, w in grids for token in [pad] * (h * w // 4) + words]
    ids = torch.tensor([tokens])
    sizes = torch.tensor([(1, *grid) for grid in grids]) if grids else None
    wanted, _ = model.model.get_rope_index(ids, (ids == pad).int(), image_grid_thw=sizes)
    found = multimodal_positions(np.array(tokens), grids, pad, 2)
    assert (found.dtype, found.shape) == (np.int64, (3, 1, len(tokens)))
    assert np.array_equal(found, wanted.numpy())


def test_plain_positions_count() -> None:
    found = plain_positions(5)
    assert (found.dtype, found.shape) == (np.int64, (3, 1, 5))
    assert (found == np.arange(5)).all()
