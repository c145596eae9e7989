"""The recipe's own cases: they fit, and are those that matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.recipe.blip import load
from anyport.source import TorchSession
from anyport.tensors import check_feeds
from tests.recipe.blip_folders import BOS, CLASSES, PAD, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.recipe import Part


def cases_of(parts: tuple[Part, ...]) -> dict[str, list[dict[str, np.ndarray]]]:
    return {part.name: [dict(feeds) for feeds in part.given()] for part in parts if part.given is not None}


@pytest.mark.parametrize("architecture", CLASSES)
def test_every_part_has_cases_that_it_takes(architecture: str, tmp_path: Path) -> None:
    parts = load(write_folder(architecture, tmp_path)).parts
    cases = cases_of(parts)
    assert list(cases) == [part.name for part in parts]
    for part in parts:
        assert cases[part.name], part.name
        for feeds in cases[part.name]:
            sizes = check_feeds(feeds, part.signature.inputs, part.signature.dims)
            answer = TorchSession(part).run(feeds)
            assert all(np.isfinite(array).all() for array in answer.values())
            assert sizes["batch"] in {1, 3}


def test_decoding_begins_without_a_past_and_goes_on_with_one(tmp_path: Path) -> None:
    parts = load(write_folder("BlipForQuestionAnswering", tmp_path)).parts
    cases = cases_of(parts)
    prompt, step = cases["text_decoder"]
    mask = prompt["attention_mask"]
    assert prompt["past_0_k"].shape[2] == 0
    assert step["past_0_k"].shape[2] == mask.shape[1] == step["attention_mask"].shape[1] - 1
    assert step["input_ids"].shape == (3, 1)
    assert sorted(mask.sum(1).tolist()) == sorted({*mask.sum(1).tolist()}), "three lengths"
    assert (np.diff(mask, axis=1) >= 0).all(), "padded at the left"
    first = [row[start] for row, start in zip(prompt["input_ids"], mask.argmax(1), strict=True)]
    assert first == [BOS] * 3
    assert (prompt["input_ids"][mask == 0] == PAD).all()
    assert (step["position_ids"][:, 0] == mask.sum(1)).all()
    questions = cases["question_encoder"][1]["attention_mask"]
    assert (np.diff(questions, axis=1) <= 0).all(), "padded at the right"
    assert questions.sum(1).min() == 2, "an empty text is its first and its last token"
    assert (prompt["cross_mask"] == questions).all()
