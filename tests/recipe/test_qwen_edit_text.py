"""The text encoder answers what Qwen2.5-VL answers, with pictures in their places, padded or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from anyport.recipe.qwen_edit_text import TextEncoder, causal_bias, merged
from tests.recipe.qwen_folders import SIZES, make_text_encoder

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(scope="module", name="model")
def _model() -> Any:
    return make_text_encoder(SIZES["tiny"])


def feeds(model: Any, batch: int, length: int, n_image: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(1, 200, (batch, length), generator=generator)
    ids[:, 2 : 2 + n_image] = model.config.image_token_id
    positions = torch.arange(length).expand(3, batch, length).clone()
    positions[1] += 3  # rows and columns of their own
    positions[2] = positions[2] % 5
    return {
        "input_ids": ids,
        "attention_mask": torch.ones(batch, length, dtype=torch.int64),
        "position_ids": positions,
        "image_embeds": torch.randn(batch * n_image, 64, generator=generator),
    }


def expected_of(model: Any, given: dict[str, Tensor]) -> Tensor:
    """As ``Qwen2_5_VLModel.forward`` puts the pictures in: with ``masked_scatter``."""
    ids = given["input_ids"]
    embeds = model.model.language_model.embed_tokens(ids)
    is_image = (ids == model.config.image_token_id)[..., None].expand_as(embeds)
    states: Tensor = model.model.language_model(
        inputs_embeds=embeds.masked_scatter(is_image, given["image_embeds"]),
        attention_mask=given["attention_mask"],
        position_ids=given["position_ids"],
        use_cache=False,
    ).last_hidden_state
    return states


@torch.no_grad()
@pytest.mark.parametrize(("batch", "length", "n_image"), [(1, 3, 1), (1, 40, 20), (2, 17, 6), (3, 90, 30)])
def test_states_are_those_of_the_model(model: Any, batch: int, length: int, n_image: int) -> None:
    given = feeds(model, batch, length, n_image)
    expected = expected_of(model, given)
    torch.testing.assert_close(TextEncoder(model)(**given), expected, **CLOSE)
    assert expected.std() > 0.1


@torch.no_grad()
def test_the_whole_model_with_pictures(model: Any) -> None:
    """From pixels, as the pipeline calls it: its last hidden state is that of the encoder."""
    given = feeds(model, 1, 30, 6)
    grid = torch.tensor([[1, 4, 6]])
    pixels = torch.randn(24, 1176, generator=torch.Generator().manual_seed(0))
    whole = model(
        input_ids=given["input_ids"],
        attention_mask=given["attention_mask"],
        pixel_values=pixels,
        image_grid_thw=grid,
        output_hidden_states=True,
    ).hidden_states[-1]
    given["image_embeds"] = model.model.visual(pixels, grid_thw=grid).pooler_output
    given["position_ids"] = torch.arange(30).expand(3, 1, 30)
    torch.testing.assert_close(TextEncoder(model)(**given), whole, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("left", [False, True])
def test_padding_changes_nothing(model: Any, left: bool) -> None:
    alone = feeds(model, 1, 12, 4)
    wide = feeds(model, 2, 19, 4)
    place = slice(7, 19) if left else slice(0, 12)
    wide["input_ids"][0] = 1
    wide["attention_mask"][0] = 0
    wide["input_ids"][0, place] = alone["input_ids"][0]
    wide["attention_mask"][0, place] = 1
    wide["position_ids"][:, 0, place] = alone["position_ids"][:, 0]
    wide["image_embeds"][:4] = alone["image_embeds"]
    found = TextEncoder(model)(**wide)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[:1, place], TextEncoder(model)(**alone), **CLOSE)


def test_pictures_lie_in_the_order_of_their_tokens() -> None:
    embeds = torch.zeros(2, 3, 1)
    is_image = torch.tensor([[True, False, True], [False, True, False]])
    rows = torch.tensor([[1.0], [2.0], [3.0]])
    assert merged(embeds, rows, is_image)[..., 0].tolist() == [[1, 0, 2], [0, 3, 0]]
    assert merged(embeds, rows[:1], is_image)[..., 0].tolist() == [[1, 0, 1], [0, 1, 0]]


def test_padding_sees_itself() -> None:
    bias = causal_bias(torch.tensor([[0, 1, 1], [0, 0, 0]]), torch.float32)
    assert (bias[:, 0] == 0).int().tolist() == [
        [[1, 0, 0], [0, 1, 0], [0, 1, 1]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    ]
