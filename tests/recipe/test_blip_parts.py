"""The parts of the three models: names and axes as the tasks expect them."""

from __future__ import annotations

import pytest

from anyport.recipe.blip_parts import answer_parts, caption_parts, match_parts, sizes_of
from tests.recipe.blip_folders import WORDS, tiny_model

SPLITS = {
    "BlipForConditionalGeneration": caption_parts,
    "BlipForImageTextRetrieval": match_parts,
    "BlipForQuestionAnswering": answer_parts,
}
V = len(WORDS) + 2
IDS, MASK = f"input_ids int64[batch, sequence] 0..{V - 1}", "attention_mask int64[batch, sequence] 0..1"
PICTURE = ("pixel_values float32[batch, 3, 32, 32]", "->", "image_embeds float32[batch, 17, 48]")
EMBEDS = "image_embeds float32[batch, 17, 48]"


def decoder(head: int) -> tuple[str, ...]:
    """Return the ends of the decoder of two layers, whose 4 heads are ``head`` wide."""
    past = [f"past_{i}_{w} float32[batch, 4, past, {head}]" for i in (0, 1) for w in "kv"]
    present = [f"present_{i}_{w} float32[batch, 4, past+sequence, {head}]" for i in (0, 1) for w in "kv"]
    return (
        IDS,
        "attention_mask int64[batch, past+sequence] 0..1",
        "position_ids int64[batch, sequence] 0..63",
        "cross_mask int64[batch, positions] 0..1",
        *past,
        *cross(head),
        "->",
        f"logits float32[batch, {V}]",
        *present,
    )


def cross(head: int) -> list[str]:
    return [f"cross_{i}_{w} float32[batch, 4, positions, {head}]" for i in (0, 1) for w in "kv"]


EXPECTED: dict[str, dict[str, tuple[str, ...]]] = {
    "BlipForConditionalGeneration": {
        "vision_encoder": PICTURE,
        "cross_keys": ("encoder_hidden_states float32[batch, positions, 48]", "->", *cross(8)),
        "text_decoder": decoder(8),
    },
    "BlipForQuestionAnswering": {
        "vision_encoder": PICTURE,
        "question_encoder": (IDS, MASK, EMBEDS, "->", "question_embeds float32[batch, sequence, 48]"),
        "cross_keys": ("encoder_hidden_states float32[batch, positions, 48]", "->", *cross(12)),
        "text_decoder": decoder(12),
    },
    "BlipForImageTextRetrieval": {
        "vision_encoder": PICTURE,
        "text_encoder": (IDS, MASK, "->", "text_embeds float32[batch, sequence, 32]"),
        "multimodal_encoder": (IDS, MASK, EMBEDS, "->", "multimodal_embeds float32[batch, sequence, 32]"),
        "itm_head": ("multimodal_state float32[batch, 32]", "->", "itm_logits float32[batch, 2]"),
        "image_projection": ("image_state float32[batch, 48]", "->", "image_features float32[batch, 24]"),
        "text_projection": ("text_state float32[batch, 32]", "->", "text_features float32[batch, 24]"),
    },
}


@pytest.mark.parametrize("architecture", SPLITS)
def test_parts_have_the_names_and_axes_of_the_tasks(architecture: str) -> None:
    module = tiny_model(architecture)
    parts = SPLITS[architecture](module, sizes_of(module.config))
    found = {
        part.name: (
            *(f"{spec.name} {spec}" for spec in part.signature.inputs),
            "->",
            *(f"{spec.name} {spec}" for spec in part.signature.outputs),
        )
        for part in parts
    }
    assert list(found) == list(EXPECTED[architecture])
    assert found == EXPECTED[architecture]
    assert not any(child.training for part in parts for child in part.module.modules())


def test_axes_have_the_sizes_that_the_model_allows() -> None:
    module = tiny_model("BlipForQuestionAnswering")
    parts = {part.name: part for part in answer_parts(module, sizes_of(module.config))}
    ranges = {name: str(sizes) for name, sizes in parts["text_decoder"].signature.dims.items()}
    assert ranges == {"batch": "1..64", "positions": "1..64", "sequence": "1..64", "past": "0..63"}
    assert [name for name, part in parts.items() if part.cures] == ["text_decoder"]
