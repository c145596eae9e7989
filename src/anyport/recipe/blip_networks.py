"""The networks that a BLIP model is taken apart into: each calls transformers' own modules."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

HONOURED_CROSS_MASK: Final = (
    "the cross mask reaches the attention: transformers (5.23) hands it over under a name that is not read"
)


class VisionEncoder(nn.Module):
    """float32[batch, 3, S, S] -> float32[batch, P, D]; P is one more than the number of patches."""

    def __init__(self, vision_model: nn.Module) -> None:
        super().__init__()
        self.vision_model = vision_model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the states of all patches, the class token first."""
        states: Tensor = self.vision_model(pixel_values=pixel_values).last_hidden_state
        return states


class TextEncoder(nn.Module):
    """int64[batch, sequence], its mask -> float32[batch, sequence, D]; no picture."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the states of all tokens."""
        states: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states


class MultimodalEncoder(nn.Module):
    """int64[batch, sequence], its mask, float32[batch, P, D] of a picture -> float32[batch, sequence, D]."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor) -> Tensor:
        """Return the states of all tokens, which have seen the picture."""
        states: Tensor = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=image_embeds
        ).last_hidden_state
        return states


class CrossKeys(nn.Module):
    """float32[batch, positions, D] -> keys and values of each layer, float32[batch, H, positions, d].

    The order is ``cross_0_k, cross_0_v, cross_1_k, …``. They are the same for every token that is decoded,
    so they are computed once for each picture (or question).
    """

    def __init__(self, layers: Any) -> None:
        super().__init__()
        attentions = [layer.crossattention.self for layer in layers]
        self.head_size: int = attentions[0].attention_head_size
        self.projections = nn.ModuleList(
            linear for attention in attentions for linear in (attention.key, attention.value)
        )

    def forward(self, encoder_hidden_states: Tensor) -> tuple[Tensor, ...]:
        """Return two tensors for each layer."""
        return tuple(
            projection(encoder_hidden_states).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for projection in self.projections
        )


class TextDecoder(nn.Module):
    """One step of the decoder, or its prompt: the same graph, since ``past`` may be 0.

    In order: ``input_ids`` int64[batch, sequence], ``attention_mask`` int64[batch, past+sequence],
    ``position_ids`` int64[batch, sequence], ``cross_mask`` int64[batch, positions], then for each layer
    ``past_i_k, past_i_v`` float32[batch, H, past, d], then for each layer ``cross_i_k, cross_i_v``
    float32[batch, H, positions, d].

    Out: ``logits`` float32[batch, V] of the last position, then for each layer ``present_i_k, present_i_v``
    float32[batch, H, past+sequence, d].
    """

    def __init__(self, language_model: Any) -> None:
        super().__init__()
        self.language_model = language_model
        self.n_layers: int = language_model.config.num_hidden_layers

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the logits and the keys and values to keep."""
        input_ids, attention_mask, position_ids, cross_mask, *states = tensors
        past, cross = states[: 2 * self.n_layers], states[2 * self.n_layers :]
        cache = _cache(past, cross)
        with honour_cross_mask(self.language_model):
            answer = self.language_model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                # its size alone is read: the keys and values come from the cache
                encoder_hidden_states=cross[0].transpose(1, 2).flatten(2),
                encoder_attention_mask=cross_mask,
                past_key_values=cache,
                use_cache=True,
                is_decoder=True,
                logits_to_keep=1,
            )
        kept = cache.self_attention_cache.layers
        return (answer.logits[:, -1], *(t for layer in kept for t in (layer.keys, layer.values)))


def _cache(past: list[Tensor], cross: list[Tensor]) -> Any:
    """Return transformers' cache with the keys and values of every layer."""
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    own, other = DynamicCache(), DynamicCache()
    n_layers = len(past) // 2
    for i in range(n_layers):
        own.update(past[2 * i], past[2 * i + 1], i)
        other.update(cross[2 * i], cross[2 * i + 1], i)
    cache = EncoderDecoderCache(own, other)
    cache.is_updated = dict.fromkeys(range(n_layers), True)
    return cache


@contextmanager
def honour_cross_mask(language_model: nn.Module) -> Iterator[None]:
    """Let the cross-attention of a decoder read its mask while this context is open.

    In transformers 5.23 ``BlipTextLayer`` hands the mask to ``attention_mask``, and
    ``BlipTextSelfAttention`` reads ``encoder_attention_mask`` when it attends to an encoder: it is lost, and
    padded questions are attended to. Nothing of the model is changed when the context is closed.
    """
    model: Any = language_model
    hooks = [
        layer.crossattention.self.register_forward_pre_hook(_hand_over, with_kwargs=True)
        for layer in model.bert.encoder.layer
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _hand_over(_attention: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    if named.get("encoder_attention_mask") is None:
        named = named | {"encoder_attention_mask": named.get("attention_mask")}
    return given, named


class ItmHead(nn.Module):
    """float32[batch, D], the state of the first token -> float32[batch, 2]: no match, match."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, multimodal_state: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(multimodal_state)
        return logits


class ImageProjection(nn.Module):
    """float32[batch, D], the state of the class token -> float32[batch, F] of length 1."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, image_state: Tensor) -> Tensor:
        """Return the features."""
        return nn.functional.normalize(self.projection(image_state), dim=-1)


class TextProjection(nn.Module):
    """float32[batch, D], the state of the first token -> float32[batch, F] of length 1."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, text_state: Tensor) -> Tensor:
        """Return the features."""
        return nn.functional.normalize(self.projection(text_state), dim=-1)
