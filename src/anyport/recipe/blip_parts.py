"""The parts of the three BLIP models: which networks, under which names, with which axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from anyport.recipe import blip_networks as networks
from anyport.recipe.part import Part
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from anyport.tensors import TensorSpec

_ROWS: Final = "1..64"  # of a decoder: beams count as rows
# 16 texts of 512 tokens have 0.2 GB of attention scores in each layer of the base size, 64 would have 0.8
_BATCH: Final = "1..16"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of a configuration that the axes of the parts are made of.

    Attributes:
        picture: Height and width, in pixels.
        positions: Patches and the class token.
        width: Of the states of the vision encoder.
        text_width: Of the states of the text networks.
        vocabulary: How many tokens there are.
        max_positions: The length of the position table.
        layers: Of the text networks.
        heads: Of the text networks.
    """

    picture: int
    positions: int
    width: int
    text_width: int
    vocabulary: int
    max_positions: int
    layers: int
    heads: int

    @property
    def head_size(self) -> int:
        """How wide one head is."""
        return self.text_width // self.heads


def sizes_of(config: Any) -> Sizes:
    """Read a ``BlipConfig``."""
    vision, text = config.vision_config, config.text_config
    return Sizes(
        picture=vision.image_size,
        positions=(vision.image_size // vision.patch_size) ** 2 + 1,
        width=vision.hidden_size,
        text_width=text.hidden_size,
        vocabulary=text.vocab_size,
        max_positions=text.max_position_embeddings,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
    )


def caption_parts(model: Any, sizes: Sizes) -> tuple[Part, ...]:
    """Take a ``BlipForConditionalGeneration`` apart."""
    return (vision_encoder(model, sizes), *decoder_parts(model, sizes, sizes.positions))


def answer_parts(model: Any, sizes: Sizes) -> tuple[Part, ...]:
    """Take a ``BlipForQuestionAnswering`` apart."""
    network = networks.MultimodalEncoder(model.text_encoder)
    question = _text_part("question_encoder", network, "question_embeds", sizes, with_picture=True)
    decoder = decoder_parts(model, sizes, sizes.max_positions)
    return (vision_encoder(model, sizes), question, *decoder)


def match_parts(model: Any, sizes: Sizes) -> tuple[Part, ...]:
    """Take a ``BlipForImageTextRetrieval`` apart."""
    text, both = networks.TextEncoder(model.text_encoder), networks.MultimodalEncoder(model.text_encoder)
    n_features = model.text_proj.out_features
    heads = (
        ("itm_head", networks.ItmHead(model.itm_head), "multimodal_state", "itm_logits", 2),
        (
            "image_projection",
            networks.ImageProjection(model.vision_proj),
            "image_state",
            "image_features",
            n_features,
        ),
        (
            "text_projection",
            networks.TextProjection(model.text_proj),
            "text_state",
            "text_features",
            n_features,
        ),
    )
    widths = {"image_state": sizes.width}
    return (
        vision_encoder(model, sizes),
        _text_part("text_encoder", text, "text_embeds", sizes, with_picture=False),
        _text_part("multimodal_encoder", both, "multimodal_embeds", sizes, with_picture=True),
        *(
            _part(
                name,
                network,
                [tensor(given, f"float32[batch, {widths.get(given, sizes.text_width)}]")],
                [tensor(found, f"float32[batch, {n}]")],
                {"batch": _ROWS},
            )
            for name, network, given, found, n in heads
        ),
    )


def vision_encoder(model: Any, sizes: Sizes) -> Part:
    """Pictures in, the states of their patches out."""
    size = sizes.picture
    return _part(
        "vision_encoder",
        networks.VisionEncoder(model.vision_model),
        [tensor("pixel_values", f"float32[batch, 3, {size}, {size}]")],
        [tensor("image_embeds", f"float32[batch, {sizes.positions}, {sizes.width}]")],
        {"batch": _BATCH},
    )


def decoder_parts(model: Any, sizes: Sizes, max_positions: int) -> tuple[Part, ...]:
    """Return the keys and values of what is attended to, and the decoder with its cache.

    Args:
        model: Has a ``text_decoder``.
        sizes: Of its configuration.
        max_positions: How many states there may be to attend to.
    """
    decoder = model.text_decoder
    layers = decoder.bert.encoder.layer
    width = layers[0].crossattention.self.key.in_features
    keys = f"float32[batch, {sizes.heads}, positions, {sizes.head_size}]"
    cross = _per_layer("cross", keys, sizes)
    shared = {"batch": _ROWS, "positions": f"1..{max_positions}"}
    cross_keys = _part(
        "cross_keys",
        networks.CrossKeys(layers),
        [tensor("encoder_hidden_states", f"float32[batch, positions, {width}]")],
        cross,
        shared,
    )
    last = sizes.max_positions - 1
    text_decoder = _part(
        "text_decoder",
        networks.TextDecoder(decoder),
        [
            tensor("input_ids", f"int64[batch, sequence] 0..{sizes.vocabulary - 1}"),
            tensor("attention_mask", "int64[batch, past+sequence] 0..1"),
            tensor("position_ids", f"int64[batch, sequence] 0..{last}"),
            tensor("cross_mask", "int64[batch, positions] 0..1"),
            *_per_layer("past", keys.replace("positions", "past"), sizes),
            *cross,
        ],
        [
            tensor("logits", f"float32[batch, {sizes.vocabulary}]"),
            *_per_layer("present", keys.replace("positions", "past+sequence"), sizes),
        ],
        {**shared, "sequence": f"1..{sizes.max_positions}", "past": f"0..{last}"},
    )
    return cross_keys, replace(text_decoder, cures=(networks.HONOURED_CROSS_MASK,))


def _per_layer(prefix: str, notation: str, sizes: Sizes) -> list[TensorSpec]:
    return [tensor(f"{prefix}_{i}_{which}", notation) for i in range(sizes.layers) for which in "kv"]


def _text_part(name: str, network: nn.Module, output: str, sizes: Sizes, *, with_picture: bool) -> Part:
    inputs = [
        tensor("input_ids", f"int64[batch, sequence] 0..{sizes.vocabulary - 1}"),
        tensor("attention_mask", "int64[batch, sequence] 0..1"),
    ]
    if with_picture:
        inputs.append(tensor("image_embeds", f"float32[batch, {sizes.positions}, {sizes.width}]"))
    outputs = [tensor(output, f"float32[batch, sequence, {sizes.text_width}]")]
    return _part(name, network, inputs, outputs, {"batch": _BATCH, "sequence": f"1..{sizes.max_positions}"})


def _part(
    name: str,
    network: nn.Module,
    inputs: Iterable[TensorSpec],
    outputs: Iterable[TensorSpec],
    dims: Mapping[str, str],
) -> Part:
    ranges = {axis: dim(axis, text) for axis, text in dims.items()}
    return Part(name, network.eval(), Signature(tuple(inputs), tuple(outputs), ranges))
