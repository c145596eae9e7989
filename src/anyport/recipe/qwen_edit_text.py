"""The text encoder of Qwen-Image-Edit: the language model of Qwen2.5-VL, which reads text and pictures."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

MERGED_PICTURES: Final = (
    "the states of pictures are put in the places of their tokens by a gather: ONNX has no masked_scatter"
)
OWN_CAUSAL_MASK: Final = (
    "the causal mask is a bias in which padding sees itself: rows without any key are no number in ONNX"
)


class TextEncoder(nn.Module):
    """The last states of all tokens.

    ``input_ids`` and ``attention_mask`` int64[batch, sequence] (padded on either side), ``position_ids``
    int64[3, batch, sequence] (time, height, width), ``image_embeds`` float32[image_tokens, D] in the order of
    the image tokens of the whole batch -> float32[batch, sequence, D].
    """

    def __init__(self, text_encoder: Any) -> None:
        super().__init__()
        self.language_model = text_encoder.model.language_model
        self.image_token: int = text_encoder.config.image_token_id

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, image_embeds: Tensor
    ) -> Tensor:
        """Return the states after the last norm."""
        embeds = merged(
            self.language_model.embed_tokens(input_ids), image_embeds, input_ids == self.image_token
        )
        states: Tensor = self.language_model(
            inputs_embeds=embeds,
            # a dict is taken as it is
            attention_mask={"full_attention": causal_bias(attention_mask, embeds.dtype)},
            position_ids=position_ids,
            use_cache=False,
        ).last_hidden_state
        return states


def merged(embeds: Tensor, image_embeds: Tensor, is_image: Tensor) -> Tensor:
    """Put the n-th row of ``image_embeds`` in the place of the n-th image token.

    Args:
        embeds: float32[batch, sequence, D].
        image_embeds: float32[image_tokens, D]; its last row serves again where there are too few.
        is_image: bool[batch, sequence].
    """
    place = is_image.flatten().to(torch.int64).cumsum(0) - 1
    place = place.clamp(min=0).clamp(max=image_embeds.shape[0] - 1)
    return torch.where(is_image[..., None], image_embeds[place].view(embeds.shape), embeds)


def causal_bias(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return [batch, 1, sequence, sequence]: 0 where a token sees another, else the least number.

    Every token sees itself, also where it is padding.
    """
    place = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    is_seen = (place[None] <= place[:, None]) & (attention_mask != 0)[:, None]
    is_seen = is_seen | (place[None] == place[:, None])
    least = torch.finfo(dtype).min
    return torch.zeros_like(is_seen, dtype=dtype).masked_fill(~is_seen, least)[:, None]
