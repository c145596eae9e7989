"""The template, the tokenizer, the sizes and the schedule are those of diffusers and transformers."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer
from transformers import Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from anyport.errors import SourceError
from anyport.recipe import qwen_edit_assets as assets
from anyport.recipe.qwen_edit_parts import Networks
from anyport.task.edit_settings import EditorSettings
from tests.recipe.qwen_folders import PLUS, SIZES, make_text_encoder, make_transformer, make_vae, write_folder

if TYPE_CHECKING:
    from pathlib import Path

TINY = SIZES["tiny"]


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("hub") / "Tiny-Edit")


@pytest.fixture(name="folder")
def _folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "Tiny-Edit")


@pytest.fixture(scope="module", name="networks")
def _networks() -> Networks:
    return Networks(make_text_encoder(TINY), make_transformer(TINY), make_vae(TINY))


def rewrite(path: Path, **words: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | words), encoding="utf-8")


def settings_of(folder: Path, networks: Networks, pipeline: str = PLUS) -> dict[str, Any]:
    return assets.edit_settings(folder, networks, pipeline, assets.read_tokenizer(folder))


@pytest.mark.parametrize("pipeline", assets.FORMS)
def test_the_template_is_that_of_the_pipeline(pipeline: str) -> None:
    """Read from the source of diffusers: its pipelines cannot be made without torchvision."""
    name = {"QwenImageEditPipeline": "edit", "QwenImageEditPlusPipeline": "edit_plus"}[pipeline]
    from importlib import util

    spec = util.find_spec(f"diffusers.pipelines.qwenimage.pipeline_qwenimage_{name}")
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:  # noqa: PTH123  (a path of another package)
        source = file.read()
    picture = assets.FORMS[pipeline].picture
    inside = picture if name == "edit" else ""
    template = (assets.BEFORE + inside + "{}" + assets.AFTER).replace("\n", "\\n")
    assert f'self.prompt_template_encode = "{template}"' in source
    assert f"self.prompt_template_encode_start_idx = {assets.N_DROPPED}" in source
    assert name == "edit" or f'img_prompt_template = "{picture}"' in source
    area = "calculate_dimensions(1024 * 1024," if name == "edit" else "CONDITION_IMAGE_SIZE = 384 * 384"
    assert area in source


def test_the_defaults_are_those_of_the_packages() -> None:
    words = inspect.signature(FlowMatchEulerDiscreteScheduler.__init__).parameters
    assert {name: words[name].default for name in assets._SCHEDULER} == dict(assets._SCHEDULER)
    processor = Qwen2VLImageProcessorPil()
    for name, value in assets._PROCESSOR.items():
        known = getattr(processor, name)
        assert (
            dict(known) if name == "size" else tuple(known) if name.startswith("image_") else known
        ) == value


def test_the_settings_fit_the_task(saved: Path, networks: Networks) -> None:
    settings = settings_of(saved, networks)
    read = msgspec.convert(settings, EditorSettings)
    assert read.text.image_pad == networks.text_encoder.config.image_token_id
    assert (read.rope.axes, read.latents.channels, read.latents.vae_scale) == (TINY.rope, 16, 8)
    assert (read.schedule.max_shift, read.schedule.max_tokens, read.schedule.terminal) == (0.9, 8192, 0.02)
    assert (read.picture.n_max, read.picture.condition_area, read.picture.max_pixels) == (3, 384**2, 12845056)
    single = settings_of(saved, networks, "QwenImageEditPipeline")
    assert (single["picture"]["n_max"], single["picture"]["condition_area"]) == (1, 1024**2)
    assert single["text"]["picture"] == "<|vision_start|><|image_pad|><|vision_end|>"


def test_texts_become_the_tokens_of_transformers(saved: Path) -> None:
    words = Tokenizer.from_str(assets.read_tokenizer(saved).decode())
    known = Qwen2Tokenizer.from_pretrained(saved / "tokenizer")
    for text in (
        "",
        "put the cat on it",
        "把白色T恤换成黑色,并添加'新品上市'文字",
        "  two\n\nlines 12345",
        assets.BEFORE,
    ):
        assert words.encode(text, add_special_tokens=False).ids == known(text).input_ids


def test_the_tokenizer_may_be_of_two_files(folder: Path) -> None:
    expected = assets.read_tokenizer(folder)
    model = json.loads(expected)["model"]
    for name in ("processor", "tokenizer"):
        (folder / name / "tokenizer.json").unlink()
    with pytest.raises(
        SourceError, match="^'Tiny-Edit' has no tokenizer: neither tokenizer.json nor vocab.json"
    ):
        assets.read_tokenizer(folder)
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(merge) for merge in model["merges"])
    (folder / "tokenizer" / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    found = Tokenizer.from_str(assets.read_tokenizer(folder).decode())
    text = assets.BEFORE + "put it there"
    whole = Tokenizer.from_str(expected.decode())
    assert found.encode(text).ids == whole.encode(text).ids


@pytest.mark.parametrize(
    ("file", "words", "text"),
    [
        (
            "transformer/config.json",
            {"use_additional_t_cond": True},
            "use_additional_t_cond = True, which this recipe does not do",
        ),
        ("transformer/config.json", {"guidance_embeds": True}, "guidance_embeds = True, which"),
        ("vae/config.json", {"attn_scales": [1.0]}, "attn_scales = [1.0], which"),
        ("scheduler/scheduler_config.json", {"use_karras_sigmas": True}, "use_karras_sigmas = True, which"),
    ],
)
def test_what_the_parts_do_not_do_is_refused(
    folder: Path, file: str, words: dict[str, Any], text: str
) -> None:
    assets.check_configs(folder)
    rewrite(folder / file, **words)
    with pytest.raises(SourceError) as caught:
        assets.check_configs(folder)
    assert caught.value.what.startswith(f"{file} has {text}")


def test_another_scheduler_is_refused(folder: Path) -> None:
    rewrite(folder / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler")
    with pytest.raises(SourceError, match="names the scheduler 'DDIMScheduler', the task has FlowMatchEuler"):
        assets.check_configs(folder)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"patch_size": 16}, "processor/preprocessor_config.json has patch_size = 16, expected 14"),
        ({"do_resize": False}, "processor/preprocessor_config.json has do_resize = False, expected True"),
        ({"resample": 2}, "processor/preprocessor_config.json has resample = 2, expected 3"),
    ],
)
def test_another_processor_is_refused(
    folder: Path, networks: Networks, words: dict[str, Any], text: str
) -> None:
    rewrite(folder / "processor" / "preprocessor_config.json", **words)
    with pytest.raises(SourceError) as caught:
        settings_of(folder, networks)
    assert caught.value.what == text


def test_the_processor_may_be_of_transformers_5(folder: Path, networks: Networks) -> None:
    path = folder / "processor" / "preprocessor_config.json"
    words = {"image_processor": {"min_pixels": None, "size": {"shortest_edge": 784, "longest_edge": 100_000}}}
    path.with_name("processor_config.json").write_text(json.dumps(words), encoding="utf-8")
    path.unlink()
    picture = settings_of(folder, networks)["picture"]
    assert (picture["min_pixels"], picture["max_pixels"]) == (784, 100_000)


def test_sliding_windows_are_refused(saved: Path, networks: Networks) -> None:
    sliding = make_text_encoder(TINY)
    sliding.config.text_config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(
        SourceError, match="^text_encoder/config.json has use_sliding_window = True, which this"
    ):
        settings_of(saved, replace(networks, text_encoder=sliding))


def test_a_tokenizer_of_another_model_is_refused(saved: Path, networks: Networks) -> None:
    right = assets.read_tokenizer(saved)
    fewer = json.loads(right)
    fewer["model"]["merges"] = fewer["model"]["merges"][:20]
    with pytest.raises(
        SourceError, match="^the template begins with [0-9]+ tokens of this tokenizer, and diff"
    ):
        assets.edit_settings(saved, networks, PLUS, json.dumps(fewer).encode())
    renamed = right.replace(b"<|image_pad|>", b"<|image_pat|>")
    with pytest.raises(
        SourceError, match=r"^the tokenizer calls <\|image_pad\|> None, text_encoder/config.json"
    ):
        assets.edit_settings(saved, networks, PLUS, renamed)
    more = json.loads(right)
    more["added_tokens"].append(more["added_tokens"][-1] | {"id": 439, "content": "<|more|>"})
    with pytest.raises(SourceError, match="^the tokenizer has 440 tokens, the text encoder knows 439\n"):
        assets.edit_settings(saved, networks, PLUS, json.dumps(more).encode())
