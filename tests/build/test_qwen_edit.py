"""Qwen-Image-Edit, the whole way: five parts proven with power, replayed from the bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from anyport.build.proving import verify_part
from anyport.bundle import open_bundle
from anyport.graph.capture import capture
from anyport.graph.convert import convert
from anyport.graph.storing import StoreOptions, store
from anyport.recipe import qwen_edit
from anyport.recipe.qwen_edit_parts import text_encoder, transformer
from anyport.runtime import open_session
from anyport.source import TorchReference, TorchSession
from anyport.verify import Status
from anyport.verify.whole_task import WHOLE_TASK
from tests.build.edit_bundle import HOW, build_folder, tiny
from tests.recipe.qwen_folders import SIZES, make_text_encoder, make_transformer, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.build import BuildResult
    from anyport.recipe import Part

PARTS = ["vision_encoder", "text_encoder", "vae_encoder", "transformer", "vae_decoder"]


def check(result: BuildResult) -> None:
    wholes = result.verdicts[len(PARTS) :]  # attention is fused in a variant of its own where that is faster
    assert [verdict.part.variant for verdict in wholes] in (["fp32"], ["fp32", "fp32-fused"])
    assert {(one.part.name, one.status) for one in wholes} == {(WHOLE_TASK, Status.PASS)}, wholes[-1].table()
    assert [verdict.part.name for verdict in result.verdicts[: len(PARTS)]] == PARTS
    for verdict in result.verdicts[: len(PARTS)]:
        assert {leg.name: leg.status for leg in verdict.legs} == dict.fromkeys(
            ("values", "power", "weights"), Status.PASS
        ), str(verdict)
    assert result.manifest.task == "edit"
    variant = result.manifest.variants["fp32"]
    assert variant.proven
    cures = {step.settings["part"]: " ".join(step.settings["cures"]) for step in variant.steps}
    assert "windows are a batch" in cures["vision_encoder"]
    assert "no complex numbers" in cures["transformer"]
    assert "folded to 2-D" in cures["vae_encoder"]
    assert "folded to 2-D" in cures["vae_decoder"]
    assert "assets/tokenizer.json" in [entry.path for entry in result.manifest.files]


def test_a_folder_becomes_a_proven_bundle(tmp_path_factory: pytest.TempPathFactory) -> None:
    built = tiny(tmp_path_factory)
    check(built.result)
    with open_bundle(built.result.path) as bundle:
        bundle.check()
        for part in qwen_edit.load(built.folder).parts:
            check_answers(part, bundle.graph_file(part.name))


def check_answers(part: Part, graph: Path) -> None:
    """Hold the recipe's own cases against PyTorch once more, with a session of the bundle."""
    reference, session = TorchSession(part), open_session(graph)
    for feeds in part.given() if part.given else ():
        found = session.run(feeds)
        for name, expected in reference.run(feeds).items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)
    session.close()


@pytest.mark.slow
def test_a_middle_size(tmp_path: Path) -> None:
    """512, 256 and 768 wide; 6, 8 and 6 layers; rotations as published."""
    folder = write_folder(tmp_path / "Mid-Edit", "mid")
    check(build_folder(folder, replace(HOW, max_case_bytes=1 << 20)).result)


@pytest.mark.slow
def test_a_denoiser_block_of_the_published_width(tmp_path: Path) -> None:
    """3072 wide, 24 heads, text 3584."""
    published: dict[str, Any] = {
        "num_layers": 1,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 3584,
        "axes_dims_rope": (16, 56, 56),
    }
    model = make_transformer(SIZES["tiny"], **published)
    assert model.inner_dim == 3072
    prove(transformer(model), tmp_path)


def test_a_denoiser_with_zero_cond_t(tmp_path: Path) -> None:
    """That of 2511: proven with the recipe's own cases."""
    folder = write_folder(tmp_path / "Tiny-Edit", zero_cond_t=True)
    part = next(part for part in qwen_edit.load(folder).parts if part.name == "transformer")
    assert part.signature.inputs[-1].name == "is_output"
    prove(part, tmp_path)


@pytest.mark.slow
def test_a_text_layer_of_the_published_width(tmp_path: Path) -> None:
    """3584 wide, 28 heads, 4 of them keys; the vision encoder stays tiny."""
    model = make_text_encoder(replace(SIZES["tiny"], text=(3584, 1, 28, 4)))
    prove(given_pictures(text_encoder(model), model.config.image_token_id), tmp_path)


def given_pictures(part: Part, image_token: int) -> Part:
    """Return the part with two cases that differ in the states of pictures alone."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 200, (1, 12), generator=generator)
    ids[:, 3:9] = image_token
    feeds = {
        "input_ids": ids.numpy(),
        "attention_mask": np.ones((1, 12), np.int64),
        "position_ids": np.tile(np.arange(12, dtype=np.int64), (3, 1, 1)),
    }
    embeds = [torch.randn(6, 3584, generator=generator).numpy() for _ in range(2)]
    return replace(part, given=lambda: [feeds | {"image_embeds": rows} for rows in embeds])


def prove(part: Part, folder: Path) -> None:
    captured, path = capture(part), folder / "model.onnx"
    store(convert(captured, part), path, StoreOptions())
    verdict = verify_part(part, captured, path, TorchReference(part), replace(HOW, max_cases=16))
    assert verdict.status is Status.PASS, str(verdict)
