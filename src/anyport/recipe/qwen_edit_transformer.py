"""The denoiser of Qwen-Image: diffusers' own blocks, with real rotations, whose tables are inputs."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

REAL_ROTATION: Final = (
    "rotary positions are real cosines and sines, and inputs: ONNX has no complex numbers, and diffusers "
    "reads the sizes of pictures from a Python list"
)
TEXT_MASK: Final = (
    "the text mask becomes a bias of the joint attention: diffusers makes a tensor of the number of tokens, "
    "which fixes it"
)
Tables = tuple[Tensor, Tensor]  # cosines and sines, float32[tokens, head size / 2] each


class Places(NamedTuple):
    """Where the tokens are, and which of them count.

    Attributes:
        image: Tables of the image tokens.
        text: Tables of the text tokens.
        bias: Added to the scores: float32[batch, 1, 1, text_tokens + latent_tokens].
    """

    image: Tables
    text: Tables
    bias: Tensor


class Transformer(nn.Module):
    """One evaluation of the velocity.

    In order: ``hidden_states`` float32[batch, latent_tokens, C], the packed latents of the output, then those
    of the pictures; ``encoder_hidden_states`` float32[batch, text_tokens, D] and
    ``encoder_hidden_states_mask`` [batch, text_tokens], 0 at padding; ``timestep`` float32[batch], from 1
    (noise) to 0; ``img_cos`` and ``img_sin`` float32[latent_tokens, d/2]; ``txt_cos`` and ``txt_sin``
    float32[text_tokens, d/2].

    Out: float32[batch, latent_tokens, C], of which a task keeps the tokens of the output.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the velocity of every image token."""
        hidden_states, encoder_hidden_states, mask, timestep, *tables = tensors
        img_cos, img_sin, txt_cos, txt_sin = tables
        places = Places((img_cos, img_sin), (txt_cos, txt_sin), _padding_bias(mask, hidden_states))
        with real_rotation(self.transformer):
            velocity: Tensor = self.transformer(
                hidden_states=hidden_states,
                encoder_hidden_states=encoder_hidden_states,
                timestep=timestep,
                img_shapes=places,
                return_dict=False,
            )[0]
        return velocity


@contextmanager
def real_rotation(transformer: nn.Module) -> Iterator[None]:
    """Let a transformer read `Places` from ``img_shapes`` while this context is open.

    Nothing of the model is changed when the context is closed.
    """
    model: Any = transformer
    attentions = [block.attn for block in model.transformer_blocks]
    try:
        model.pos_embed.forward = _as_given
        for attention in attentions:
            attention.forward = partial(joint_attention, attention)
        yield
    finally:
        for module in (model.pos_embed, *attentions):
            vars(module).pop("forward", None)  # the method of the class is there again


def _as_given(img_shapes: Places, **_: Any) -> Places:
    return img_shapes


def joint_attention(
    attention: Any,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    encoder_hidden_states_mask: None,  # noqa: ARG001  (diffusers hands it over)
    image_rotary_emb: Places,
) -> tuple[Tensor, Tensor]:
    """Do what diffusers' ``QwenDoubleStreamAttnProcessor2_0`` does, in real numbers.

    Args:
        attention: Has the projections and norms.
        hidden_states: float32[batch, latent_tokens, C].
        encoder_hidden_states: float32[batch, text_tokens, C].
        encoder_hidden_states_mask: Not used: it is in the bias.
        image_rotary_emb: What `real_rotation` hands through.

    Returns:
        What the image tokens and the text tokens take from each other.
    """
    text, image, places = encoder_hidden_states, hidden_states, image_rotary_emb
    heads = (attention.heads, -1)
    text_query = attention.norm_added_q(attention.add_q_proj(text).unflatten(-1, heads))
    text_key = attention.norm_added_k(attention.add_k_proj(text).unflatten(-1, heads))
    image_query = attention.norm_q(attention.to_q(image).unflatten(-1, heads))
    image_key = attention.norm_k(attention.to_k(image).unflatten(-1, heads))
    query = torch.cat([rotate(text_query, places.text), rotate(image_query, places.image)], dim=1)
    key = torch.cat([rotate(text_key, places.text), rotate(image_key, places.image)], dim=1)
    value = torch.cat([attention.add_v_proj(text), attention.to_v(image)], dim=1)
    mixed = nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        torch.unflatten(value, -1, heads).transpose(1, 2),
        attn_mask=places.bias,
    )
    mixed = mixed.transpose(1, 2).flatten(2)
    n_text = text.shape[1]
    return attention.to_out[0](mixed[:, n_text:]), attention.to_add_out(mixed[:, :n_text])


def rotate(x: Tensor, tables: Tables) -> Tensor:
    """Turn neighbouring pairs of channels: float32[batch, tokens, heads, d]."""
    cos, sin = (table[None, :, None, :] for table in tables)
    real, imaginary = torch.unflatten(x, -1, (-1, 2)).unbind(-1)
    turned = torch.stack((real * cos - imaginary * sin, real * sin + imaginary * cos), dim=-1)
    return turned.flatten(-2)


def _padding_bias(mask: Tensor, hidden_states: Tensor) -> Tensor:
    """Return float32[batch, 1, 1, text_tokens + latent_tokens]: 0, and the least number at padding."""
    least = torch.finfo(hidden_states.dtype).min
    text = torch.zeros_like(mask, dtype=hidden_states.dtype).masked_fill(mask == 0, least)
    return torch.cat([text, torch.zeros_like(hidden_states[..., 0])], dim=1)[:, None, None]
