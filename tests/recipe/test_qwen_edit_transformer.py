"""The denoiser with real tables is the one with complex numbers, padded or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from anyport.recipe.qwen_edit_transformer import Transformer, real_rotation, step_frequencies
from anyport.task.edit_rope import rope_tables
from anyport.task.edit_settings import RopeSettings
from tests.recipe.qwen_folders import SIZES, make_transformer

CLOSE = {"rtol": 1e-4, "atol": 2e-5}
TINY = SIZES["tiny"]
# rows and columns of tokens: of the output, then of one to three pictures; odd ones, and a single token
GRIDS = [
    [(1, 1), (2, 2)],
    [(13, 15), (8, 10)],
    [(4, 6), (7, 3), (2, 9)],
    [(1, 12), (5, 5), (3, 8), (6, 4)],
]


@pytest.fixture(scope="module", name="transformer")
def _transformer() -> Any:
    return make_transformer(TINY)


def feeds(grids: list[tuple[int, int]], n_text: int, batch: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(n_text)
    n_tokens = sum(rows * columns for rows, columns in grids)
    tables = rope_tables(grids, n_text, RopeSettings(axes=TINY.rope))
    return {
        "hidden_states": torch.randn(batch, n_tokens, 64, generator=generator),
        "encoder_hidden_states": torch.randn(batch, n_text, TINY.text[0], generator=generator),
        "timestep": torch.linspace(1.0, 0.02, batch),
    } | {name: torch.from_numpy(table) for name, table in tables.items()}


def expected_of(transformer: Any, given: dict[str, Tensor], grids: list[tuple[int, int]]) -> Tensor:
    names = ("hidden_states", "encoder_hidden_states", "timestep")
    shapes = [[(1, *grid) for grid in grids]] * len(given["timestep"])
    velocity: Tensor = transformer(
        **{name: given[name] for name in names}, img_shapes=shapes, return_dict=False
    )[0]
    return velocity


@torch.no_grad()
@pytest.mark.parametrize("grids", GRIDS)
@pytest.mark.parametrize("n_text", [1, 23])
def test_velocities_are_those_of_diffusers(
    transformer: Any, grids: list[tuple[int, int]], n_text: int
) -> None:
    given = feeds(grids, n_text)
    expected = expected_of(transformer, given, grids)
    torch.testing.assert_close(Transformer(transformer)(*given.values()), expected, **CLOSE)
    assert expected.std() > 0.1


@torch.no_grad()
def test_a_batch_equals_its_rows(transformer: Any) -> None:
    grids = [(4, 6), (3, 5)]
    given = feeds(grids, 9, batch=2)
    both = Transformer(transformer)(*given.values())
    for row in range(2):
        alone = {name: x if name[:3] in {"img", "txt"} else x[row : row + 1] for name, x in given.items()}
        torch.testing.assert_close(both[row : row + 1], Transformer(transformer)(*alone.values()), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("name", ["img_cos", "img_sin", "txt_cos", "txt_sin", "timestep"])
def test_every_table_matters(transformer: Any, name: str) -> None:
    given = feeds([(4, 6), (3, 5)], 9)
    right = Transformer(transformer)(*given.values())
    wrong = Transformer(transformer)(*(given | {name: given[name] * 0.5}).values())
    assert (right - wrong).abs().max() > 1e-3


@torch.no_grad()
def test_the_cure_leaves_nothing_behind(transformer: Any) -> None:
    attentions = [block.attn for block in transformer.transformer_blocks]
    replaced = [transformer.pos_embed, transformer.time_text_embed.time_proj, *attentions]
    with real_rotation(transformer, step_frequencies(transformer)):
        assert all("forward" in vars(module) for module in replaced)
    assert not any("forward" in vars(module) for module in replaced)
    given, grids = feeds([(2, 3), (4, 5)], 7), [(2, 3), (4, 5)]
    before = expected_of(transformer, given, grids)
    with pytest.raises(RuntimeError):
        Transformer(transformer)(*(given | {"img_cos": given["img_cos"][1:]}).values())
    assert not any("forward" in vars(module) for module in replaced)
    assert torch.equal(expected_of(transformer, given, grids), before)


@pytest.fixture(scope="module", name="of_2511")
def _of_2511() -> Any:
    return make_transformer(TINY, zero_cond_t=True)


def masked(grids: list[tuple[int, int]], n_text: int, batch: int = 1) -> dict[str, Tensor]:
    given = feeds(grids, n_text, batch)
    rows, columns = grids[0]
    return given | {"is_output": torch.arange(given["hidden_states"].shape[1]) < rows * columns}


@torch.no_grad()
@pytest.mark.parametrize("grids", GRIDS)
@pytest.mark.parametrize("batch", [1, 2])
def test_pictures_are_told_step_0(of_2511: Any, grids: list[tuple[int, int]], batch: int) -> None:
    """``zero_cond_t``, with a mask in the place of diffusers' list of sizes."""
    given = masked(grids, 9, batch)
    expected = expected_of(of_2511, given, grids)
    torch.testing.assert_close(Transformer(of_2511)(*given.values()), expected, **CLOSE)
    mistaken = given | {"is_output": torch.ones_like(given["is_output"])}
    assert (Transformer(of_2511)(*mistaken.values()) - expected).abs().max() > 1e-2


@torch.no_grad()
def test_the_mask_leaves_nothing_behind(of_2511: Any) -> None:
    given, grids = masked([(2, 3), (4, 5)], 7), [(2, 3), (4, 5)]
    before = expected_of(of_2511, given, grids)
    with pytest.raises(RuntimeError):
        Transformer(of_2511)(*(given | {"img_cos": given["img_cos"][1:]}).values())
    assert all(module.zero_cond_t for module in (of_2511, *of_2511.transformer_blocks))
    assert not any({"forward", "_modulate"} & set(vars(module)) for module in of_2511.modules())
    assert torch.equal(expected_of(of_2511, given, grids), before)


@pytest.mark.slow
@torch.no_grad()
def test_a_block_of_the_real_width() -> None:
    """3072 wide, 24 heads, text 3584: one block."""
    from diffusers import QwenImageTransformer2DModel

    torch.manual_seed(0)
    wide = QwenImageTransformer2DModel(num_layers=1).eval()
    assert wide.inner_dim == 3072
    grids = [(6, 9), (7, 5)]
    given = feeds(grids, 11)
    given["encoder_hidden_states"] = torch.randn(1, 11, 3584, generator=torch.Generator().manual_seed(1))
    given |= {n: torch.from_numpy(t) for n, t in rope_tables(grids, 11, RopeSettings()).items()}
    torch.testing.assert_close(Transformer(wide)(*given.values()), expected_of(wide, given, grids), **CLOSE)
