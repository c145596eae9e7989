"""The five parts of a Qwen-Image-Edit pipeline: which networks, under which names, with which axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from anyport.recipe import qwen_edit_text, qwen_edit_transformer, qwen_edit_vae, qwen_edit_vision
from anyport.recipe.part import Part
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from anyport.tensors import TensorSpec

_BATCH: Final = "1..2"  # guided and unguided in one call; a picture more would cost as much as another run
_PATCHES: Final = "4..16384:4"
# 28 heads over 2048 tokens have 0.5 GB of attention scores in each layer of the published size
_TOKENS: Final = "1..2048"
_KIB: Final = 1 << 10


@dataclass(frozen=True, slots=True)
class Networks:
    """The three networks of a pipeline, in eval mode."""

    text_encoder: Any
    transformer: Any
    vae: Any


def edit_parts(networks: Networks) -> tuple[Part, ...]:
    """Take a pipeline apart, in the order in which a task runs the parts."""
    return (
        vision_encoder(networks.text_encoder),
        text_encoder(networks.text_encoder),
        vae_encoder(networks.vae),
        transformer(networks.transformer),
        vae_decoder(networks.vae),
    )


def vision_encoder(model: Any) -> Part:
    """Patches of pictures in, the states of every four out."""
    config = model.config.vision_config
    width = config.in_channels * config.temporal_patch_size * config.patch_size**2
    slots = (config.window_size // config.patch_size) ** 2
    part = _part(
        "vision_encoder",
        qwen_edit_vision.VisionEncoder(model.model.visual),
        [
            tensor("pixel_values", f"float32[patches, {width}]"),
            tensor("patch_positions", "int64[patches, 2] 0..1023"),
            tensor("picture_ids", "int64[patches] 0..2"),
            tensor("window_patches", f"int64[windows, {slots}] 0..16383"),
            tensor("window_mask", f"bool[windows, {slots}]"),
            tensor("patch_slots", "int64[patches] 0..262143"),
        ],
        [
            tensor(
                "image_embeds",
                f"float32[patches//{config.spatial_merge_size**2}, {config.out_hidden_size}]",
            )
        ],
        {"patches": _PATCHES, "windows": "1..4096"},
    )
    cures = (qwen_edit_vision.WINDOWS_GIVEN, qwen_edit_vision.PATCHES_ARE_ROWS)
    # 4000 patches: 1 GB of attention scores at 16 heads
    return replace(part, cures=cures, max_case_bytes=20 << 20)


def text_encoder(model: Any) -> Part:
    """Tokens and the states of pictures in, the states of all tokens out."""
    config = model.config.text_config
    part = _part(
        "text_encoder",
        qwen_edit_text.TextEncoder(model),
        [
            tensor("input_ids", f"int64[batch, sequence] 0..{config.vocab_size - 1}"),
            tensor("attention_mask", "int64[batch, sequence] 0..1"),
            tensor("position_ids", "int64[3, batch, sequence] 0..4095"),
            tensor("image_embeds", f"float32[merged, {config.hidden_size}]"),
        ],
        [tensor("last_hidden_state", f"float32[batch, sequence, {config.hidden_size}]")],
        {"batch": _BATCH, "sequence": _TOKENS, "merged": "1..4096"},
    )
    cures = (qwen_edit_text.MERGED_PICTURES, qwen_edit_text.OWN_CAUSAL_MASK)
    return replace(part, cures=cures, blocks="language_model.layers")


def transformer(model: Any) -> Part:
    """Noisy latents, pictures and text in, the velocity out."""
    config = model.config
    half = sum(config.axes_dims_rope) // 2
    tables = [
        tensor(f"{name}_{function}", f"float32[{axis}, {half}] -1..1")
        for name, axis in (("img", "latent_tokens"), ("txt", "text_tokens"))
        for function in ("cos", "sin")
    ]
    n_out = config.patch_size**2 * config.out_channels
    part = _part(
        "transformer",
        qwen_edit_transformer.Transformer(model),
        [
            tensor("hidden_states", f"float32[batch, latent_tokens, {config.in_channels}]"),
            tensor("encoder_hidden_states", f"float32[batch, text_tokens, {config.joint_attention_dim}]"),
            tensor("timestep", "float32[batch] 0..1"),
            *tables,
            *[tensor("is_output", "bool[latent_tokens]")] * config.zero_cond_t,
        ],
        [tensor("velocity", f"float32[batch, latent_tokens, {n_out}]")],
        {"batch": _BATCH, "latent_tokens": "1..65536", "text_tokens": _TOKENS},
    )
    cures = [
        qwen_edit_transformer.REAL_ROTATION,
        qwen_edit_transformer.NO_TEXT_MASK,
        qwen_edit_transformer.STEP_TABLE,
    ]
    if config.zero_cond_t:
        cures.append(qwen_edit_transformer.OUTPUT_MASK)
    blocks = "transformer.transformer_blocks"
    return replace(part, cures=tuple(cures), max_case_bytes=2 << 20, blocks=blocks)


def vae_encoder(model: Any) -> Part:
    """Pictures in, their latents out."""
    config = model.config
    part = _part(
        "vae_encoder",
        qwen_edit_vae.VaeEncoder(model),
        [tensor("image", f"float32[batch, {config.input_channels}, height, width] -1..1")],
        [tensor("latent", f"float32[batch, {config.z_dim}, height//8, width//8]")],
        {"batch": _BATCH, "height": "16..4096:16", "width": "16..4096:16"},
    )
    return replace(part, cures=(qwen_edit_vae.SINGLE_FRAME,), max_case_bytes=4 << 20)


def vae_decoder(model: Any) -> Part:
    """Latents in, pictures out."""
    config = model.config
    part = _part(
        "vae_decoder",
        qwen_edit_vae.VaeDecoder(model),
        [tensor("latent", f"float32[batch, {config.z_dim}, latent_height, latent_width]")],
        [tensor("image", f"float32[batch, {config.input_channels}, 8*latent_height, 8*latent_width]")],
        {"batch": _BATCH, "latent_height": "2..512:2", "latent_width": "2..512:2"},
    )
    return replace(part, cures=(qwen_edit_vae.SINGLE_FRAME,), max_case_bytes=512 * _KIB)


def _part(
    name: str,
    network: nn.Module,
    inputs: Iterable[TensorSpec],
    outputs: Iterable[TensorSpec],
    dims: Mapping[str, str],
) -> Part:
    ranges = {axis: dim(axis, text) for axis, text in dims.items()}
    return Part(name, network.eval(), Signature(tuple(inputs), tuple(outputs), ranges))
