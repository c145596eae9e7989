"""The trained weights: in the stock pipeline, as training computes them, and as the bundle that ships."""

from __future__ import annotations

import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
import torch
from assemble import FOLDER, open_pipeline
from judge import bundle_editor, compared, pipeline_editor
from judging import CORE, cases, judge, judge_all, table
from latents import Codec
from PIL import Image
from prompts import Prompts
from sampling import Networks, edit_pictures
from vision import CONDITION_SIDE, seen

from tests.house import tree

if TYPE_CHECKING:
    from diffusers import QwenImageEditPlusPipeline
    from judging import JudgedCase

BUNDLE: Final = tree.PACKAGE / "demo" / "editor.port"
MAX_FOLDER_BYTES: Final = 25_000_000
MAX_BUNDLE_BYTES: Final = 20_000_000


@pytest.fixture(scope="module")
def pipeline() -> QwenImageEditPlusPipeline:
    torch.set_num_threads(1)
    return open_pipeline()


@pytest.fixture(scope="module")
def networks(pipeline: QwenImageEditPlusPipeline) -> Networks:
    prompts = Prompts(pipeline.tokenizer, pipeline.text_encoder)
    return Networks(pipeline.transformer, prompts, Codec(pipeline.vae))


def test_folder_and_bundle_are_small() -> None:
    assert sum(path.stat().st_size for path in Path(FOLDER).rglob("*") if path.is_file()) <= MAX_FOLDER_BYTES
    assert len(zlib.compress(BUNDLE.read_bytes(), 6)) <= MAX_BUNDLE_BYTES  # a wheel is a zip


def test_training_computes_the_pipelines_own_prompts(
    pipeline: QwenImageEditPlusPipeline, networks: Networks
) -> None:
    for case in cases(4, seed=5, kinds=("recolour",)):
        condition = Image.fromarray(case.source).resize((CONDITION_SIDE,) * 2, Image.Resampling.LANCZOS)
        with torch.no_grad():
            wanted, _ = pipeline.encode_prompt(image=[condition], prompt=case.instruction)
            found, real = networks.prompts([case.instruction], torch.from_numpy(seen(case.source[None])))
        assert real.all()
        assert torch.allclose(found, wanted, atol=1e-5)


def test_training_samples_the_pipelines_own_pictures(networks: Networks) -> None:
    edit = pipeline_editor(FOLDER)
    drawn = cases(4, seed=6, kinds=("recolour", "tag_add"))[:6]
    found = edit_pictures(
        networks, [case.source for case in drawn], [case.instruction for case in drawn], seed=0
    )
    from sampling import start_noise as training_noise

    for number, case in enumerate(drawn):
        wanted = edit(case, training_noise(number, 16).numpy(), 4)
        assert np.abs(found[number] / 255 - wanted).max() < 1.01 / 255


def test_the_judge_finds_the_edits_right(networks: Networks) -> None:
    drawn = cases(8, seed=7)
    answers = edit_pictures(networks, [case.source for case in drawn], [case.instruction for case in drawn])
    rows = {row.name: row for row in table(drawn, judge_all(drawn, answers))}
    assert rows["six kinds"].right >= 0.75  # 85 % of 1,000; of 48, less by two standard deviations
    assert min(rows[kind].right for kind in CORE) >= 0.5


def test_the_autoencoder_is_not_what_limits_it(networks: Networks) -> None:
    drawn = cases(8, seed=8)
    targets = np.stack([case.target for case in drawn])
    again = networks.codec.decode(networks.codec.encode(targets), 64)
    assert np.mean([judge(case, answer).right for case, answer in zip(drawn, again, strict=True)]) >= 0.97


def test_the_shipped_bundle_edits_as_the_pipeline_does() -> None:
    drawn = cases(4, seed=9, kinds=("recolour", "background", "tag_change"))
    with ExitStack() as stack:
        lines, agrees = compared(drawn, pipeline_editor(FOLDER), bundle_editor(BUNDLE, None, stack), 4)
    assert agrees, lines
    assert lines[0].startswith("agree on 12 of 12 scenes")


def test_editors_that_differ_do_not_agree() -> None:
    drawn = cases(4, seed=9, kinds=("recolour",))

    def idle(case: JudgedCase, noise: np.ndarray, n_steps: int) -> np.ndarray:
        assert noise.shape[1] == n_steps * 4
        return case.source.astype(np.float32) / 255

    def right(case: JudgedCase, noise: np.ndarray, n_steps: int) -> np.ndarray:
        assert noise.shape[1] == n_steps * 4
        return case.target.astype(np.float32) / 255

    assert compared(drawn, right, right, 4) == (
        ["agree on 4 of 4 scenes; right: 100.0% and 100.0%", "the two pictures that differ most: 200.0 dB"],
        True,
    )
    lines, agrees = compared(drawn, right, idle, 4)
    assert not agrees
    assert lines[0] == "agree on 0 of 4 scenes; right: 100.0% and 0.0%"
