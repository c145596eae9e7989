"""The denoiser of Qwen-Image: diffusers' own blocks, with real rotations, whose tables are inputs."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

REAL_ROTATION: Final = (
    "rotary positions are real cosines and sines, and inputs: ONNX has no complex numbers, and diffusers "
    "reads the sizes of pictures from a Python list"
)
NO_TEXT_MASK: Final = (
    "there is no text mask: each prompt is a run of its own, so that no token is padding, and attention "
    "needs no bias"
)
STEP_TABLE: Final = (
    "the frequencies of the step are a table as PyTorch computes it: exporters fold exp() with a rounding of "
    "their own, which the angle makes a thousand times larger"
)
OUTPUT_MASK: Final = (
    "zero_cond_t: which tokens are the answer's, and so know the step, is an input: diffusers counts them "
    "in a Python list of sizes"
)
Tables = tuple[Tensor, Tensor]  # cosines and sines, float32[tokens, head size / 2] each


class Places(NamedTuple):
    """Where the tokens are.

    Attributes:
        image: Tables of the image tokens.
        text: Tables of the text tokens.
    """

    image: Tables
    text: Tables


class Transformer(nn.Module):
    """One evaluation of the velocity.

    In order: ``hidden_states`` float32[batch, latent_tokens, C], the packed latents of the output, then those
    of the pictures; ``encoder_hidden_states`` float32[batch, text_tokens, D], without padding; ``timestep``
    float32[batch], from 1 (noise) to 0; ``img_cos`` and ``img_sin`` float32[latent_tokens, d/2];
    ``txt_cos`` and ``txt_sin`` float32[text_tokens, d/2]. A model with ``zero_cond_t`` (2511) takes
    ``is_output`` bool[latent_tokens], too: the tokens of pictures are told step 0.

    Out: float32[batch, latent_tokens, C], of which a task keeps the tokens of the output.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.frequencies: Tensor
        self.register_buffer("frequencies", step_frequencies(transformer), persistent=False)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return the velocity of every image token."""
        hidden_states, encoder_hidden_states, timestep, *tables = tensors
        img_cos, img_sin, txt_cos, txt_sin, *is_output = tables
        places = Places((img_cos, img_sin), (txt_cos, txt_sin))
        with (
            real_rotation(self.transformer, self.frequencies),
            self._zero_condition(timestep, hidden_states, *is_output),
        ):
            velocity: Tensor = self.transformer(
                hidden_states=hidden_states,
                encoder_hidden_states=encoder_hidden_states,
                timestep=timestep,
                img_shapes=places,
                return_dict=False,
            )[0]
        return velocity

    def _zero_condition(
        self, timestep: Tensor, hidden_states: Tensor, is_output: Tensor | None = None
    ) -> AbstractContextManager[None]:
        if is_output is None:
            return nullcontext()
        embed: Any = self.transformer.time_text_embed
        return zero_condition(self.transformer, embed(timestep * 0, hidden_states), is_output)


def step_frequencies(transformer: nn.Module) -> Tensor:
    """Return what diffusers' ``get_timestep_embedding`` multiplies a step with: float32[channels / 2]."""
    model: Any = transformer
    table = model.time_text_embed.time_proj
    half = table.num_channels // 2
    exponents = (
        -math.log(10000) * torch.arange(half, dtype=torch.float32) / (half - table.downscale_freq_shift)
    )
    return torch.exp(exponents)


def step_embedding(table: Any, frequencies: Tensor, steps: Tensor) -> Tensor:
    """Return the cosines and sines of steps, float32[batch, channels]: what `Timesteps` of diffusers does."""
    angles = table.scale * (steps[:, None] * frequencies[None, :])
    first, second = (angles.cos(), angles.sin()) if table.flip_sin_to_cos else (angles.sin(), angles.cos())
    return torch.cat([first, second], dim=-1)


@contextmanager
def real_rotation(transformer: nn.Module, frequencies: Tensor) -> Iterator[None]:
    """Let a transformer read `Places` from ``img_shapes`` while this context is open.

    Nothing of the model is changed when the context is closed.

    Args:
        transformer: Of diffusers.
        frequencies: From `step_frequencies`.
    """
    model: Any = transformer
    attentions = [block.attn for block in model.transformer_blocks]
    steps = model.time_text_embed.time_proj
    try:
        model.pos_embed.forward = _as_given
        steps.forward = partial(step_embedding, steps, frequencies)
        for attention in attentions:
            attention.forward = partial(joint_attention, attention)
        yield
    finally:
        for module in (model.pos_embed, steps, *attentions):
            vars(module).pop("forward", None)  # the method of the class is there again


@contextmanager
def zero_condition(transformer: nn.Module, at_zero: Tensor, is_output: Tensor) -> Iterator[None]:
    """Let a transformer with ``zero_cond_t`` read from a mask which tokens are told step 0.

    diffusers doubles the batch and halves it again, which needs a number of rows that is known at export.
    Nothing of the model is changed when the context is closed.

    Args:
        transformer: With ``zero_cond_t``.
        at_zero: Its embedding of step 0, float32[batch, C].
        is_output: bool[latent_tokens], the tokens that are told the step itself.
    """
    model: Any = transformer
    switched = [model, *model.transformer_blocks]
    try:
        for module in switched:
            module.zero_cond_t = False
        for block in model.transformer_blocks:
            block.img_mod.forward = partial(_at_both_steps, block.img_mod, at_zero)
            block._modulate = partial(_modulate, is_output)  # noqa: SLF001  (there is no other way in)
        yield
    finally:
        for module in switched:
            module.zero_cond_t = True
        for block in model.transformer_blocks:
            vars(block).pop("_modulate", None)
            vars(block.img_mod).pop("forward", None)


def _at_both_steps(modulation: nn.Module, at_zero: Tensor, at_step: Tensor) -> Tensor:
    """Return float32[batch, 2, 6 C]: what the step and step 0 do to a token."""
    both: Tensor = type(modulation).forward(modulation, torch.stack([at_step, at_zero], dim=1))
    return both


def _modulate(is_output: Tensor, x: Tensor, params: Tensor, _: None = None) -> tuple[Tensor, Tensor]:
    """Do what the method of this name does; ``params`` of pictures are those of `_at_both_steps`."""
    if params.ndim == 2:  # noqa: PLR2004  (of the text)
        shift, scale, gate = params[:, None].chunk(3, dim=-1)
    else:
        choose = is_output[None, :, None]
        both = params.chunk(3, dim=-1)
        shift, scale, gate = (torch.where(choose, one[:, :1], one[:, 1:]) for one in both)
    return x * (1 + scale) + shift, gate


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
        encoder_hidden_states_mask: There is none.
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
