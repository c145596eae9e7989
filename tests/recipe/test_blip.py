"""The BLIP recipe: whole checkpoints become models, others are refused by the names of their weights."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from anyport.errors import SourceError
from anyport.recipe.blip import load, outline
from anyport.source import SourceRequest, TorchSession, find_model
from tests.recipe.blip_folders import CLASSES, tiny_model, write_bert_vocabulary, write_folder
from tests.recipe.blip_pth import original_model, original_weights, save

if TYPE_CHECKING:
    from pathlib import Path

TASKS = {
    "BlipForConditionalGeneration": "caption",
    "BlipForImageTextRetrieval": "match",
    "BlipForQuestionAnswering": "answer",
}
CAPTION = "BlipForConditionalGeneration"


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(CAPTION, tmp_path_factory.mktemp("hub") / "Tiny-BLIP")


def failure(folder: Path, text: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        find_model(SourceRequest(text, folder))
    return caught.value


@pytest.mark.parametrize("architecture", CLASSES)
def test_a_saved_folder_becomes_a_model(architecture: str, tmp_path: Path) -> None:
    write_folder(architecture, tmp_path / "Tiny")
    model = find_model(SourceRequest("Tiny", tmp_path))
    assert (model.name, model.source, model.task) == ("tiny", "Tiny", TASKS[architecture])
    assert list(model.assets) == ["assets/tokenizer.json"]
    assert model.settings["text"]["tokenizer"] == "assets/tokenizer.json"
    assert ("generation" in model.settings) == (model.task != "match")
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    with torch.no_grad():
        expected = tiny_model(architecture).vision_model(torch.from_numpy(x)).last_hidden_state.numpy()
    assert np.array_equal(TorchSession(model.parts[0]).run({"pixel_values": x})["image_embeds"], expected)


@pytest.mark.parametrize("architecture", CLASSES)
def test_an_original_file_becomes_a_model(architecture: str, tmp_path: Path) -> None:
    write_bert_vocabulary(tmp_path)
    save(tmp_path / "Model_Base.pth", {"model": original_weights(original_model(architecture))})
    model = find_model(SourceRequest("Model_Base.pth", tmp_path))
    assert (model.name, model.source, model.task) == ("model_base", "Model_Base.pth", TASKS[architecture])
    assert model.settings["picture"]["size"] == [224, 224]
    words = model.settings["text"]
    assert (words["bos"], words["sep"], words["pad"], words["max_length"]) == (30522, 102, 0, 40)
    assert words["multimodal_start"] == (30523 if model.task == "answer" else words["start"])
    assert (
        model.settings.get("generation", {}).get("prompt")
        == {
            "caption": "a picture of",
            "answer": "",
            "match": None,
        }[model.task or ""]
    )


RETRIEVAL = "BlipForImageTextRetrieval"
EMBEDDING = ["vision_encoder", "text_encoder", "multimodal_encoder", "image_projection", "text_projection"]


def test_a_feature_extractor_has_the_parts_that_it_uses(tmp_path: Path) -> None:
    write_folder(RETRIEVAL, tmp_path / "Tiny", n_layers=1)
    model = find_model(SourceRequest("Tiny", tmp_path))
    features = model.built_for("embed")
    assert (features.task, [part.name for part in features.parts]) == ("embed", EMBEDDING)
    assert features.settings == model.settings
    assert all(list(part.given()) for part in features.parts if part.given)
    assert [model.built_for(task) for task in (None, "match", "caption")] == [model] * 3
    caption = find_model(SourceRequest(str(write_folder(CAPTION, tmp_path / "c", n_layers=1)), tmp_path))
    assert caption.built_for("embed") == caption


@pytest.mark.parametrize("pretrained", [False, True])
def test_the_original_extracts_features_with_a_mark_of_its_own(tmp_path: Path, *, pretrained: bool) -> None:
    write_bert_vocabulary(tmp_path)
    weights = original_weights(original_model(RETRIEVAL))
    if pretrained:
        weights["text_decoder.cls.predictions.bias"] = torch.zeros(30524)
    save(tmp_path / "m.pth", {"model": weights})
    model = find_model(SourceRequest("m.pth", tmp_path))
    cls, enc = 101, 30523
    assert model.settings["text"]["start"] == cls
    assert model.settings["text"]["multimodal_start"] == (enc if pretrained else cls)
    words = model.built_for("embed").settings["text"]
    assert (words["start"], words["multimodal_start"]) == (cls, enc)


def test_a_model_in_half_precision_is_read_in_float32(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "half")
    halves = {key: value.half() for key, value in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors", {"format": "pt"})
    parts = load(folder).parts
    assert {p.dtype for part in parts for p in part.module.parameters()} == {torch.float32}


def rewritten(folder: Path, change: Any) -> None:
    """Write other weights into a checkpoint."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


NORM = "vision_model.post_layernorm.bias"


def test_a_partial_checkpoint_is_refused_by_its_keys(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "partial")
    rewritten(folder, lambda weights: weights.pop(NORM))
    assert failure(tmp_path, "partial").what == f"'partial' lacks 1 weights of {CAPTION}: '{NORM}'"
    rewritten(folder, lambda weights: weights.update({NORM: torch.zeros(48), "extra.weight": torch.zeros(1)}))
    assert (
        failure(tmp_path, "partial").what == f"'partial' has unknown 1 weights of {CAPTION}: 'extra.weight'"
    )


def test_a_weight_that_is_not_finite_is_refused_by_its_key(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "broken")
    rewritten(folder, lambda weights: weights[NORM].__setitem__(3, float("nan")))
    assert failure(tmp_path, "broken").what == (
        f"'broken' has a weight whose numbers are NaN or infinite: '{NORM}' (1 of 48)"
    )


def test_an_original_weight_that_is_not_finite_is_refused_by_its_key(tmp_path: Path) -> None:
    write_bert_vocabulary(tmp_path)
    weights = original_weights(original_model(CAPTION))
    weights["visual_encoder.norm.bias"][0] = float("inf")
    save(tmp_path / "m.pth", {"model": weights})
    assert failure(tmp_path, "m.pth").what.startswith(
        f"'m.pth' has a weight whose numbers are NaN or infinite: '{NORM}' (1 of "
    )


def test_what_is_assumed_of_pictures_is_a_warning(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "silent")
    size = json.dumps({"size": {"height": 32, "width": 32}})
    (folder / "preprocessor_config.json").write_text(size, encoding="utf-8")
    assert load(folder).warnings == outline(folder).warnings == ()
    (folder / "preprocessor_config.json").unlink()
    words = (
        "no preprocessor_config.json: pictures are prepared as Salesforce/blip-* do: bicubic to 32 x 32, "
        "mean 0.4815, 0.4578, 0.4082; std 0.2686, 0.2613, 0.2758"
    )
    assert load(folder).warnings == outline(folder).warnings == (words,)


def test_a_checkpoint_of_another_configuration_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["vision_config"]["hidden_size"] = 96
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert failure(tmp_path, "other").what == (
        f"'other' has of another shape 32 weights of {CAPTION}: "
        "'text_decoder.bert.encoder.layer.0.crossattention.self.key.weight', "
        "'text_decoder.bert.encoder.layer.0.crossattention.self.value.weight', "
        "'text_decoder.bert.encoder.layer.1.crossattention.self.key.weight', "
        "'text_decoder.bert.encoder.layer.1.crossattention.self.value.weight', "
        "'vision_model.embeddings.class_embedding' and 27 more"
    )


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    folder = write_folder(CAPTION, tmp_path / "shards")
    tiny_model(CAPTION).save_pretrained(folder, max_shard_size="100KB")
    (folder / "model.safetensors").unlink()
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert find_model(SourceRequest("shards", tmp_path)).task == "caption"
    shards[1].unlink()
    assert shards[1].name in str(failure(tmp_path, "shards"))


def test_a_folder_without_tokenizer_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "mute")
    (folder / "vocab.txt").unlink()
    assert str(failure(tmp_path, "mute")) == (
        "'mute' has neither tokenizer.json nor vocab.txt\n"
        "  do:    put the tokenizer of the checkpoint there; BLIP uses that of bert-base-uncased"
    )


def test_a_text_file_called_pth_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_text("no checkpoint", encoding="utf-8")
    assert failure(tmp_path, "m.pth").what.startswith("'m.pth' is no checkpoint that holds weights alone: ")
    assert failure(tmp_path, "n.pth").what == "there is no file 'n.pth'"


def test_the_users_cases_are_sorted_by_part(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "cases.py").write_text(
        "def sorted_():\n    return {'cross_keys': [{'encoder_hidden_states': 1}]}\n\n"
        "def flat():\n    return [{'pixel_values': 1}]\n\n"
        "def misspelt():\n    return {'cross_key': []}\n",
        encoding="utf-8",
    )
    parts = {
        name: {
            p.name: p for p in find_model(SourceRequest(str(saved), tmp_path, cases=f"cases.py:{name}")).parts
        }
        for name in ("sorted_", "flat", "misspelt")
    }
    given = {part.name: part.given for part in parts["sorted_"].values()}
    assert list(given["cross_keys"]()) == [{"encoder_hidden_states": 1}]  # type: ignore[misc]
    assert len(list(given["vision_encoder"]())) == 2, "the recipe's own"  # type: ignore[misc]
    with pytest.raises(SourceError, match=r"^the model has several parts, and \[cases\] gives a list"):
        parts["flat"]["cross_keys"].given()  # type: ignore[misc]
    with pytest.raises(
        SourceError, match=r"^\[cases\] speaks of the part 'cross_key' \(did you mean 'cross_keys'"
    ):
        parts["misspelt"]["vision_encoder"].given()  # type: ignore[misc]
