"""The five parts: their names and axes are what the task asks for, and each says how it was cured."""

from __future__ import annotations

import pytest
from torch import nn

from anyport.recipe.qwen_edit_parts import Networks, edit_parts, transformer
from anyport.task.edit_settings import FORMS, PARTS
from tests.recipe.qwen_folders import SIZES, make_text_encoder, make_transformer, make_vae

TINY = SIZES["tiny"]


@pytest.fixture(scope="module", name="networks")
def _networks() -> Networks:
    return Networks(make_text_encoder(TINY), make_transformer(TINY), make_vae(TINY))


def test_the_parts_are_those_of_the_task(networks: Networks) -> None:
    parts = edit_parts(networks)
    assert sorted(part.name for part in parts) == sorted(PARTS)
    for part in parts:
        form = FORMS[part.name]
        assert {spec.name: len(spec.axes) for spec in part.signature.inputs} == form.inputs
        assert {spec.name: len(spec.axes) for spec in part.signature.outputs} == form.outputs
        assert part.cures, part.name


def test_the_notation(networks: Networks) -> None:
    found = {part.name: part.signature for part in edit_parts(networks)}
    vision = {spec.name: str(spec) for spec in found["vision_encoder"].inputs}
    assert vision["pixel_values"] == "float32[patches, 1176]"
    assert vision["window_mask"] == "bool[windows, 64]"
    assert [str(s) for s in found["vision_encoder"].outputs] == ["float32[patches//4, 64]"]
    text = {spec.name: str(spec) for spec in found["text_encoder"].inputs}
    assert text["input_ids"] == "int64[batch, sequence] 0..438"
    denoiser = {spec.name: str(spec) for spec in found["transformer"].inputs}
    assert denoiser["img_cos"] == "float32[latent_tokens, 16] -1..1"
    assert [str(s) for s in found["vae_decoder"].outputs] == [
        "float32[batch, 3, 8*latent_height, 8*latent_width]"
    ]
    assert str(found["vae_encoder"].dims["height"]) == "16..4096:16"


def test_a_denoiser_with_zero_cond_t_takes_a_mask() -> None:
    """That of 2511."""
    part = transformer(make_transformer(TINY, zero_cond_t=True))
    assert [str(spec) for spec in part.signature.inputs if spec.name == "is_output"] == [
        "bool[latent_tokens]"
    ]
    assert any("zero_cond_t" in cure for cure in part.cures)


def test_the_large_parts_say_where_their_blocks_are(networks: Networks) -> None:
    found = {part.name: part for part in edit_parts(networks)}
    assert {name for name, part in found.items() if part.blocks} == {"text_encoder", "transformer"}
    for name in ("text_encoder", "transformer"):
        blocks = found[name].module.get_submodule(str(found[name].blocks))
        assert isinstance(blocks, nn.ModuleList)
        assert len(blocks) == 2
