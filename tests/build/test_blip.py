"""BLIP, the whole way: three models, every part proven with power, replayed from the bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from transformers import BlipConfig

from anyport.build import BuildPlan, BuildSettings, build, describe
from anyport.bundle import open_bundle
from anyport.recipe import blip
from anyport.runtime import open_session
from anyport.source import TorchSession
from anyport.verify import Status, verify_bundle
from tests.build.building import QUICK, silent
from tests.recipe.blip_folders import CLASSES, varied, write_bert_vocabulary, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.build import BuildResult
    from anyport.recipe import Part
    from anyport.runtime import Session

PARTS = {
    "BlipForConditionalGeneration": ["vision_encoder", "cross_keys", "text_decoder"],
    "BlipForImageTextRetrieval": [
        "vision_encoder",
        "text_encoder",
        "multimodal_encoder",
        "itm_head",
        "image_projection",
        "text_projection",
    ],
    "BlipForQuestionAnswering": ["vision_encoder", "question_encoder", "cross_keys", "text_decoder"],
}


def build_folder(folder: Path, how: BuildSettings = QUICK) -> BuildResult:
    description = describe({"model": {"source": folder.name}}, "test")
    return build(BuildPlan(description, folder.parent, folder.parent / "blip.port", how), silent)


def check(result: BuildResult, architecture: str) -> None:
    assert [verdict.part.name for verdict in result.verdicts] == PARTS[architecture]
    for verdict in result.verdicts:
        assert {leg.name: leg.status for leg in verdict.legs} == dict.fromkeys(
            ("values", "power", "weights"), Status.PASS
        ), str(verdict)
    variant = result.manifest.variants["fp32"]
    assert variant.proven
    cured = {
        step.settings["part"] for step in variant.steps if "cross mask" in " ".join(step.settings["cures"])
    }
    assert cured == {"text_decoder"} & set(PARTS[architecture])
    assert "assets/tokenizer.json" in [entry.path for entry in result.manifest.files]
    with open_bundle(result.path) as bundle:
        bundle.check()
        for verdict in verify_bundle(bundle, open_session):
            assert verdict.status is Status.PASS, str(verdict)
    proof_bytes = sum(e.size_bytes for e in result.manifest.files if e.path.startswith("proof/"))
    assert proof_bytes < 20_000_000


@pytest.mark.parametrize("architecture", CLASSES)
def test_a_folder_becomes_a_proven_bundle(architecture: str, tmp_path: Path) -> None:
    folder = write_folder(architecture, tmp_path / "tiny", n_layers=1)
    how = replace(QUICK, max_cases=24)
    result = build_folder(folder, how)
    check(result, architecture)
    with open_bundle(result.path) as bundle:
        for part in blip.load(folder).parts:
            check_answers(part, open_session(bundle.graph_file(part.name)))


def check_answers(part: Part, session: Session) -> None:
    """Hold the recipe's own cases against PyTorch once more, with a session of the bundle."""
    reference = TorchSession(part)
    for feeds in part.given() if part.given else ():
        found = session.run(feeds)
        for name, expected in reference.run(feeds).items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)
    session.close()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", CLASSES)
def test_the_base_size(architecture: str, tmp_path: Path) -> None:
    """As published: 12 layers of 768, pictures of 384 pixels; the weights are seeded."""
    config = BlipConfig(
        vision_config={"image_size": 384, "num_attention_heads": 12},
        text_config={
            "num_attention_heads": 12,
            "bos_token_id": 30522,
            "sep_token_id": 102,
            "pad_token_id": 0,
        },
    )
    folder = tmp_path / "base"
    varied(CLASSES[architecture](config)).save_pretrained(folder)
    write_bert_vocabulary(folder)
    # 52 inputs of the decoder, each of which differs alone in one case, and a few sizes
    check(build_folder(folder, replace(QUICK, max_cases=20)), architecture)
