"""The recipe's own cases: they fit, and are those that matter."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.recipe.qwen_edit import load
from anyport.source import TorchSession
from anyport.tensors import check_feeds
from tests.recipe.qwen_folders import write_folder
from tests.recipe.test_qwen_edit_assets import rewrite

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.recipe import Model


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("hub") / "Tiny-Edit")


@pytest.fixture(scope="module", name="model")
def _model(saved: Path) -> Model:
    return load(saved)


def cases_of(model: Model) -> dict[str, list[dict[str, np.ndarray]]]:
    return {
        part.name: [dict(feeds) for feeds in part.given()] for part in model.parts if part.given is not None
    }


def test_every_part_has_cases_that_it_takes(model: Model) -> None:
    cases = cases_of(model)
    for part in model.parts:
        assert len(cases[part.name]) > 1, part.name
        for feeds in cases[part.name]:
            check_feeds(feeds, part.signature.inputs, part.signature.dims)
            ranges = {
                s.name: (s.low, s.high)
                for s in part.signature.inputs
                if s.low is not None and s.high is not None
            }
            assert all(
                low <= feeds[name].min() and feeds[name].max() <= high for name, (low, high) in ranges.items()
            )
            assert all(np.isfinite(array).all() for array in TorchSession(part).run(feeds).values())


def test_they_are_those_that_matter(model: Model) -> None:
    cases = cases_of(model)
    vision = cases["vision_encoder"]
    assert [feeds["picture_ids"].max() for feeds in vision] == [0, 2], "one picture, and three"
    assert not all(feeds["window_mask"].all() for feeds in vision), "ragged windows"
    text = cases["text_encoder"]
    one, three, other, padded = text
    assert (one["position_ids"][0] == one["position_ids"][1]).all()
    assert (three["position_ids"][0] != three["position_ids"][1]).any(), "multimodal positions"
    assert [name for name in one if not np.array_equal(one[name], other[name])] == ["image_embeds"]
    assert padded["attention_mask"].min() == 0
    steps = [feeds["timestep"].tolist() for feeds in cases["transformer"]]
    assert [[round(sigma, 2) for sigma in step] for step in steps] == [[1.0], [0.97], [1.0, 0.25], [0.25]]
    first, every, both, later = cases["transformer"]
    assert [name for name in first if not np.array_equal(first[name], later[name])] == ["timestep"]
    assert len(both["timestep"]) == 2
    assert every["hidden_states"].shape[1] > first["hidden_states"].shape[1] > 15


def test_one_picture_where_the_pipeline_takes_one(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "single")
    rewrite(folder / "model_index.json", _class_name="QwenImageEditPipeline")
    cases = cases_of(load(folder))
    assert {feeds["picture_ids"].max() for feeds in cases["vision_encoder"]} == {0}
    assert [feeds["image"].shape for feeds in cases["vae_encoder"]] == [(1, 3, 96, 96)]


def test_2511_is_told_which_tokens_are_the_answers(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / "Tiny-Edit", zero_cond_t=True))
    for feeds in cases_of(model)["transformer"]:
        assert feeds["is_output"].sum() == 15
        assert feeds["is_output"][:15].all()
