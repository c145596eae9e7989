"""The vision encoder with batched windows is that of Qwen2.5-VL, for one to three pictures of any shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from anyport.recipe.qwen_edit_vision import VisionEncoder
from anyport.task.edit_windows import window_feeds
from tests.recipe.qwen_folders import SIZES, make_text_encoder

CLOSE = {"rtol": 1e-4, "atol": 2e-5}
# rows and columns of patches: less than a window, whole windows, ragged ones, one strip
GRIDS = [[(4, 6)], [(16, 24)], [(22, 34)], [(2, 38)], [(22, 34), (14, 22)], [(8, 8), (10, 2), (18, 12)]]


@pytest.fixture(scope="module", name="visual")
def _visual() -> Any:
    return make_text_encoder(SIZES["tiny"]).model.visual


def feeds(grids: list[tuple[int, int]]) -> dict[str, Tensor]:
    n_patches = sum(rows * columns for rows, columns in grids)
    pixels = torch.randn(n_patches, 1176, generator=torch.Generator().manual_seed(n_patches))
    windows = {name: torch.from_numpy(array) for name, array in window_feeds(grids, 2, 8).items()}
    return {"pixel_values": pixels, **windows}


@torch.no_grad()
@pytest.mark.parametrize("grids", GRIDS)
def test_states_are_those_of_transformers(visual: Any, grids: list[tuple[int, int]]) -> None:
    given = feeds(grids)
    expected = visual(
        given["pixel_values"], grid_thw=torch.tensor([(1, *grid) for grid in grids])
    ).pooler_output
    torch.testing.assert_close(VisionEncoder(visual)(*given.values()), expected, **CLOSE)
    assert expected.std() > 0.1


@torch.no_grad()
def test_windows_and_pictures_matter(visual: Any) -> None:
    given, encoder = feeds([(22, 34), (14, 22)]), VisionEncoder(visual)
    right = encoder(*given.values())
    whole = given | {"picture_ids": torch.zeros_like(given["picture_ids"])}
    assert (encoder(*whole.values()) - right).abs().max() > 1e-3
    for name in ("window_patches", "window_mask", "patch_slots", "patch_positions"):
        wrong = given | {name: given[name].flip(0)}
        assert (encoder(*wrong.values()) - right).abs().max() > 1e-3, name


@torch.no_grad()
def test_any_numbers_have_an_answer(visual: Any) -> None:
    """Proof cases draw patches and slots at random: they count modulo their number; no slot may be filled."""
    given = feeds([(4, 6)])
    right = VisionEncoder(visual)(*given.values())
    n_slots = given["window_patches"].numel()
    more = {
        "window_patches": given["window_patches"] + 24 * 5,
        "patch_slots": given["patch_slots"] + n_slots * 7,
    }
    assert torch.equal(VisionEncoder(visual)(*(given | more).values()), right)
    empty = given | {"window_mask": torch.zeros_like(given["window_mask"])}
    assert torch.isfinite(VisionEncoder(visual)(*empty.values())).all()
