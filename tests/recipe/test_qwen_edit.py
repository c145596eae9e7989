"""The Qwen-Image-Edit recipe: whole folders become models, others are refused by the names of their files."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file, save_file

from anyport.errors import MissingExtraError, SourceError
from anyport.recipe.qwen_edit import load, outline
from anyport.source import SourceRequest, find_model
from tests.recipe.loras import ALPHA, RANK, write_lora
from tests.recipe.qwen_folders import write_folder
from tests.recipe.test_qwen_edit_assets import rewrite

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("hub") / "Tiny-Edit")


@pytest.fixture(name="folder")
def _folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "Tiny-Edit")


def failure(folder: Path) -> SourceError:
    with pytest.raises(SourceError) as caught:
        find_model(SourceRequest(folder.name, folder.parent))
    return caught.value


def test_a_saved_folder_becomes_a_model(saved: Path) -> None:
    model = find_model(SourceRequest(saved.name, saved.parent))
    assert (model.name, model.source, model.task) == ("tiny-edit", "Tiny-Edit", "edit")
    assert [part.name for part in model.parts] == [
        "vision_encoder",
        "text_encoder",
        "vae_encoder",
        "transformer",
        "vae_decoder",
    ]
    assert list(model.assets) == ["assets/tokenizer.json"]
    assert model.settings["text"]["tokenizer"] == "assets/tokenizer.json"
    assert not any("widened" in cure for part in model.parts for cure in part.cures)
    assert not any(module.training for part in model.parts for module in part.module.modules())


def rewritten(folder: Path, component: str, change: Any) -> None:
    """Write other weights into a component."""
    [path] = (folder / component).glob("*.safetensors")
    save_file(change(load_file(path)), path, {"format": "pt"})


def test_half_precision_is_widened_and_said(folder: Path) -> None:
    rewritten(folder, "transformer", lambda weights: {name: x.bfloat16() for name, x in weights.items()})
    rewritten(folder, "text_encoder", lambda weights: {name: x.half() for name, x in weights.items()})
    parts = {part.name: part for part in load(folder).parts}
    assert {p.dtype for part in parts.values() for p in part.module.parameters()} == {torch.float32}
    said = {name: [cure for cure in part.cures if "widened" in cure] for name, part in parts.items()}
    half = ["weights stored in float16 are widened to float32"]
    assert said == {
        "vision_encoder": half,
        "text_encoder": half,
        "vae_encoder": [],
        "transformer": ["weights stored in bfloat16 are widened to float32"],
        "vae_decoder": [],
    }


@pytest.mark.parametrize(
    ("component", "key"),
    [
        ("text_encoder", "model.language_model.norm.weight"),
        ("transformer", "proj_out.bias"),
        ("vae", "decoder.conv_out.bias"),
    ],
)
def test_weights_that_are_not_whole_are_refused(folder: Path, component: str, key: str) -> None:
    [path] = (folder / component).glob("*.safetensors")
    whole = load_file(path)
    key = next(name for name in whole if name.endswith(key.removeprefix("model.language_model.")))
    rewritten(folder, component, lambda weights: {name: x for name, x in weights.items() if name != key})
    found = failure(folder)
    assert found.what.startswith(f"{component} of 'Tiny-Edit' lacks 1 weights: '")
    assert found.do == f"give the whole pipeline, with the {component}/config.json that belongs to it"
    rewritten(folder, component, lambda _: whole | {"extra.weight": torch.zeros(1)})
    assert failure(folder).what == f"{component} of 'Tiny-Edit' has unknown 1 weights: 'extra.weight'"
    rewritten(folder, component, lambda _: whole | {key: torch.zeros(5, 7)})
    assert failure(folder).what.startswith(f"{component} of 'Tiny-Edit' has of another shape 1 weights: '")


def test_another_pipeline_is_refused(folder: Path) -> None:
    rewrite(folder / "model_index.json", _class_name="FluxPipeline")
    found = failure(folder)
    assert found.what.startswith("no recipe knows the architecture 'FluxPipeline' (known: BlipFor")
    assert "QwenImageEditPipeline, QwenImageEditPlusPipeline" in found.what


def test_an_index_without_a_class_is_refused(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"vae": []}), encoding="utf-8")
    assert failure(folder).what == "'Tiny-Edit' has no config.json that names its architecture"


def test_a_missing_subfolder_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")
    assert failure(folder).what == "'Tiny-Edit' lacks text_encoder/config.json and 1 more files"


def test_a_lora_is_merged_and_named(folder: Path) -> None:
    """Paths are relative to the folder of the request; an adapter may come twice."""
    before = {name: x.clone() for name, x in load(folder).parts[3].module.state_dict().items()}
    weights = write_lora(folder.parent / "lightning.safetensors", load(folder).parts[3].module.transformer)
    request = SourceRequest(folder.name, folder.parent, adapters=("lightning.safetensors:0.5",) * 2)
    model = find_model(request)
    transformer = {part.name: part for part in model.parts}["transformer"]
    digest = hashlib.sha256((folder.parent / "lightning.safetensors").read_bytes()).hexdigest()
    merged = (
        f"the LoRA 'lightning.safetensors' (sha256 {digest}, scale 0.5) is merged into {len(weights)} weights"
    )
    assert transformer.cures[-2:] == (merged, merged)
    assert not any("LoRA" in cure for part in model.parts if part is not transformer for cure in part.cures)
    for name, weight in transformer.module.state_dict().items():
        down, up = weights.get(name.removeprefix("transformer.").removesuffix(".weight"), (None, None))
        change = 0 if up is None or name.endswith("bias") else ALPHA / RANK * (up @ down)
        torch.testing.assert_close(weight, before[name] + change, rtol=1e-5, atol=1e-6)


def test_a_lora_of_another_model_is_refused(folder: Path) -> None:
    save_file({"blocks.0.lora_A.weight": torch.ones(2, 2)}, folder.parent / "other.safetensors")
    with pytest.raises(SourceError) as caught:
        find_model(SourceRequest(folder.name, folder.parent, adapters=("other.safetensors",)))
    assert caught.value.what == (
        "the LoRA 'other.safetensors' has 'blocks.0.lora_A.weight', which fits no linear layer of this model"
    )


def test_an_id_of_the_hub_is_downloaded_whole(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline has no config.json at its root: its index is asked for next."""
    asked: list[str] = []

    def one(_name: str, file: str) -> str:
        asked.append(file)
        if file != "model_index.json":
            raise EntryNotFoundError(file)
        return str(saved / file)

    def everything(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        wanted = {"model_index.json", "transformer/*.safetensors", "vae/*.json", "tokenizer/*.txt"}
        assert wanted <= set(allow_patterns)
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", everything)
    model = find_model(SourceRequest("Somebody/Tiny-Edit", saved.parent))
    assert asked == ["config.json", "model_index.json", "Somebody/Tiny-Edit"]
    assert (model.name, model.source) == ("tiny-edit", "Somebody/Tiny-Edit")


def test_an_outline_downloads_small_files_alone(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def some(_name: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", some)
    assert outline("Somebody/Tiny-Edit").source == "Somebody/Tiny-Edit"
    assert "transformer/*.json" in asked
    assert not [pattern for pattern in asked if "safetensors" in pattern]


def test_diffusers_is_asked_for(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError) as caught:
        load(saved)
    assert str(caught.value) == (
        "a pipeline of diffusers needs the package 'diffusers', which is not installed\n"
        "  do:    pip install 'anyport[edit]'"
    )


def test_an_outline_is_the_model_without_its_weights(saved: Path) -> None:
    whole, outlined = load(saved), outline(saved)
    assert [part.signature for part in outlined.parts] == [part.signature for part in whole.parts]
    assert (outlined.task, outlined.settings) == (whole.task, whole.settings)
    counts = [sum(w.numel() for m in model.whole for w in m.parameters()) for model in (whole, outlined)]
    assert counts[0] == counts[1] > sum(w.numel() for p in whole.parts for w in p.module.parameters())
    for one, other in zip(outlined.parts, whole.parts, strict=True):
        assert {w.shape for w in one.module.parameters()} == {w.shape for w in other.module.parameters()}
        assert all(w.is_meta for w in (*one.module.parameters(), *one.module.buffers())), one.name
