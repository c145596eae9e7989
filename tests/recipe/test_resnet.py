"""The ResNet recipe: labels and preprocessing as transformers has them, checked against its own processor."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification

from anyport.errors import SourceError
from anyport.recipe import resnet as recipe
from anyport.source import SourceRequest, TorchSession, find_model
from anyport.task.picture_settings import PictureSettings, fit_picture, pixel_values

if TYPE_CHECKING:
    from pathlib import Path

LABELS = {0: "cat", 1: "dog", 2: "eel"}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def network() -> ResNetForImageClassification:
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=LABELS
    )
    module = ResNetForImageClassification(config)
    module.train(mode=False)
    return module


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "Tiny-ResNet"
    network().save_pretrained(folder)
    return folder


def write_processor(folder: Path, content: dict[str, Any] | None) -> None:
    file = folder / "preprocessor_config.json"
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_text(json.dumps(content), encoding="utf-8")


def settings_of(content: dict[str, Any]) -> PictureSettings:
    model = recipe.model_from_module(network(), content, "tiny")
    known = {key: value for key, value in model.settings.items() if key != "labels"}
    settings = PictureSettings(**known)
    settings.check()
    return settings


# ── preprocessing ───────────────────────────────────────────────────────────────────────────────────────
PROCESSORS: list[dict[str, Any]] = [
    {"size": {"shortest_edge": 64}} | IMAGENET,
    {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3} | IMAGENET,
    {"size": {"shortest_edge": 64}, "resample": 2, "crop_pct": 0.95} | IMAGENET,
    {"size": {"shortest_edge": 50}, "resample": 0, "crop_pct": 0.7},
    {"size": {"shortest_edge": 384}, "resample": 1},
    {"size": 64, "rescale_factor": 1 / 127.5} | IMAGENET,
    {"size": 32, "do_normalize": False},
    {"size": 32, "do_rescale": False},
    {"do_resize": True},
]
PICTURES = [(75, 100), (100, 75), (64, 64), (300, 41), (37, 523), (1, 9)]


@pytest.mark.parametrize("content", PROCESSORS, ids=str)
def test_numbers_are_those_of_the_image_processor(content: dict[str, Any]) -> None:
    processor = ConvNextImageProcessorPil(**content)
    settings = settings_of(content)
    generator = np.random.default_rng(0)
    for height, width in PICTURES:
        coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((width, height))
        expected = np.asarray(processor(picture, return_tensors="np")["pixel_values"])
        found = pixel_values([fit_picture(picture, settings, "picture")], settings, "float32")
        assert found.shape == expected.shape
        # one rounding of float32 each: the processor scales and normalises in two steps
        assert np.abs(found - expected).max() <= 4e-6 * max(1.0, np.abs(expected).max())


def test_a_checkpoint_without_a_file_is_as_published() -> None:
    assert settings_of({}) == settings_of({"size": 224} | IMAGENET)
    assert settings_of({}).result_size == (224, 224)
    assert recipe.model_from_module(network(), {"size": 32}, "tiny").warnings == ()
    assert recipe.model_from_module(network(), {}, "tiny").warnings == (
        (
            "no preprocessor_config.json: pictures are prepared as microsoft/resnet-* do: "
            "bicubic to 224 x 224, mean 0.485, 0.456, 0.406; std 0.229, 0.224, 0.225"
        ),
    )


@pytest.mark.parametrize("number", range(6))
def test_every_filter_is_known(number: int) -> None:
    found = settings_of({"size": 32, "resample": number}).resample
    assert Image.Resampling[found.upper()].value == number


# ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────
def test_a_saved_folder_becomes_a_model(saved: Path) -> None:
    write_processor(saved, {"size": {"shortest_edge": 64}, "image_processor_type": "ConvNextImageProcessor"})
    model = find_model(SourceRequest(saved.name, saved.parent))
    (part,) = model.parts
    assert (model.name, model.source, model.task) == ("tiny-resnet", "Tiny-ResNet", "classify")
    assert model.settings["labels"] == ["cat", "dog", "eel"]
    assert (str(part.signature.inputs[0]), str(part.signature.outputs[0])) == (
        "float32[batch, 3, 64, 64]",
        "float32[batch, 3]",
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)
    with torch.no_grad():
        expected = network()(torch.from_numpy(x)).logits.numpy()
    assert np.array_equal(TorchSession(part).run({"pixel_values": x})["logits"], expected)


def test_a_weight_that_is_not_finite_is_refused_by_its_key(tmp_path: Path) -> None:
    broken = network()
    with torch.no_grad():
        broken.classifier[1].bias[0] = float("nan")
    broken.save_pretrained(tmp_path / "broken")
    with pytest.raises(SourceError) as caught:
        find_model(SourceRequest("broken", tmp_path))
    assert caught.value.what == (
        "'broken' has a weight whose numbers are NaN or infinite: 'classifier.1.bias' (1 of 3)"
    )


def test_the_users_cases_go_over_the_recipe(saved: Path, tmp_path: Path) -> None:
    write_processor(saved, {"size": 32})
    (tmp_path / "cases.py").write_text("def samples():\n    return [{'pixel_values': 1}]\n", encoding="utf-8")
    model = find_model(SourceRequest(str(saved), tmp_path, cases="cases.py:samples"))
    assert model.parts[0].given is not None
    assert list(model.parts[0].given()) == [{"pixel_values": 1}]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            {"image_processor_type": "ViTImageProcessor", "size": 64},
            (
                "the checkpoint's picture processor is 'ViTImageProcessor', this recipe knows ConvNext's\n"
                "  do:    describe the model in an anyport.toml with [settings] of the classify task"
            ),
        ),
        (
            {"feature_extractor_type": "DeiTFeatureExtractor"},
            "the checkpoint's picture processor is 'DeiTFeatureExtractor', this recipe knows ConvNext's",
        ),
        ({"size": {"height": 64, "width": 64}}, "preprocessor_config.json has size = {'height': 64, 'width"),
        ({"size": 64, "do_resize": False}, "preprocessor_config.json has do_resize = false or"),
        ({"size": 64, "do_center_crop": True}, "preprocessor_config.json has do_resize = false or"),
    ],
)
def test_processors_that_the_recipe_does_not_know(saved: Path, content: dict[str, Any], text: str) -> None:
    write_processor(saved, content)
    with pytest.raises(SourceError, match=re.escape(text)):
        recipe.load(saved)


def test_a_checkpoint_without_weights(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    network().config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["ResNetForImageClassification"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(SourceError, match="^'empty' has no weights: ") as caught:
        find_model(SourceRequest("empty", tmp_path))
    assert "Traceback" not in str(caught.value)


def test_a_damaged_processor_file(saved: Path) -> None:
    (saved / "preprocessor_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(SourceError, match="'Tiny-ResNet' does not load: "):
        find_model(SourceRequest(saved.name, saved.parent))
