"""The prompt as the pipeline builds it, for a whole batch; the 64 dropped tokens are computed once."""

from typing import Final

import torch
from tokens import PREFIX, SUFFIX
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.cache_utils import DynamicCache
from vision import patches

N_PICTURE_TOKENS: Final = 4
PICTURE: Final = f"Picture 1: <|vision_start|>{'<|image_pad|>' * N_PICTURE_TOKENS}<|vision_end|>"


class Prompts:
    """Instructions and pictures to prompt embeddings.

    Picture tokens have plain running positions: the pipeline of diffusers 0.42 hands no token types on, so
    that is what transformers gives them.

    Args:
        tokenizer: Of the editor.
        encoder: Its text encoder.
        n_tokens: Pad to this many tokens, so that a compiler sees one shape; None pads to the longest.
    """

    def __init__(
        self,
        tokenizer: Qwen2Tokenizer,
        encoder: Qwen2_5_VLForConditionalGeneration,
        n_tokens: int | None = None,
    ) -> None:
        self._tokenizer, self._language = tokenizer, encoder.model.language_model
        self._visual = encoder.model.visual
        self._prefix = torch.tensor([tokenizer(PREFIX)["input_ids"]])
        self._picture_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self._known: dict[str, list[int]] = {}
        self._n_tokens = n_tokens

    def __call__(self, instructions: list[str], pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings, zero where padded, and which of them are real.

        Args:
            instructions: One per picture.
            pictures: uint8[batch, 56, 56, 3], from `vision.seen`.

        Returns:
            float32[batch, tokens, width] and bool[batch, tokens].
        """
        rows = [self._numbers(instruction) for instruction in instructions]
        n_tokens = self._n_tokens or max(map(len, rows))
        padded = [row + [self._tokenizer.pad_token_id] * (n_tokens - len(row)) for row in rows]
        tokens = torch.tensor(padded, device=self._language.device)
        lengths = torch.tensor([len(row) for row in rows], device=tokens.device)
        real = torch.arange(n_tokens, device=tokens.device) < lengths[:, None]
        return self._embed(tokens, real, pictures.to(tokens.device)), real

    def _numbers(self, instruction: str) -> list[int]:
        if instruction not in self._known:
            words = PICTURE + instruction + SUFFIX
            self._known[instruction] = self._tokenizer(words)["input_ids"]
        return self._known[instruction]

    def _embed(self, tokens: Tensor, real: Tensor, pictures: Tensor) -> Tensor:
        (batch, n_tokens), n_prefix = tokens.shape, self._prefix.shape[1]
        embed, cache = self._language.embed_tokens, DynamicCache(config=self._language.config)
        places = torch.arange(n_prefix + n_tokens, device=tokens.device).expand(3, 1, -1)
        self._language(
            inputs_embeds=embed(self._prefix.to(tokens.device)),
            position_ids=places[..., :n_prefix],
            past_key_values=cache,
            use_cache=True,
        )
        for layer in cache.layers:
            layer.keys, layer.values = (
                layer.keys.expand(batch, -1, -1, -1),
                layer.values.expand(batch, -1, -1, -1),
            )
        states = embed(tokens)
        in_pictures = (tokens == self._picture_token).unsqueeze(-1)
        found: Tensor = self._language(
            inputs_embeds=states.masked_scatter(in_pictures, self._tower(pictures).to(states.dtype)),
            position_ids=places[..., n_prefix:].expand(3, batch, -1),
            past_key_values=cache,
            use_cache=True,
            attention_mask=torch.cat((real.new_ones(batch, n_prefix), real), 1).long(),
        ).last_hidden_state
        return found * real.unsqueeze(-1)

    def _tower(self, pictures: Tensor) -> Tensor:
        """Return float32[batch * 4, width]."""
        pixels, grid = patches(pictures)
        found: Tensor = self._visual(pixels, grid_thw=grid).pooler_output
        return found
