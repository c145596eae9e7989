"""Weights that stay in their checkpoint: found for every part, lent to PyTorch, and what they rule out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from anyport.build import BuildPlan, BuildSettings, build, check_words, describe
from anyport.build.streams import check_references, lent_weights, open_streams
from anyport.errors import SourceError, UsageError
from anyport.recipe import qwen_edit
from tests.build.building import silent
from tests.recipe.qwen_folders import write_folder

if TYPE_CHECKING:
    from pathlib import Path

LARGE = {"text_encoder", "transformer", "vision_encoder"}


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("streams") / "Tiny-Edit")


def plan_of(folder: Path, model: dict[str, Any] | None = None, **words: Any) -> BuildPlan:
    tables = {"model": {"source": folder.name, **(model or {})}, "build": {"weights": "reference", **words}}
    description = describe(tables, "test")
    return BuildPlan(description, folder.parent, folder.parent / "edit.port", BuildSettings())


def test_the_large_parts_have_no_weights_and_say_where_these_are(folder: Path) -> None:
    model = qwen_edit.load_streamed(folder)
    assert {part.name for part in model.parts if part.stored} == LARGE
    for part in model.parts:
        assert all(weight.is_meta == (part.stored is not None) for weight in part.module.parameters())
    streams = open_streams(model)
    assert set(streams) == LARGE
    assert {stream.root for stream in streams.values()} == {folder.resolve()}  # one folder for all of them
    text = streams["text_encoder"]
    name = "model.language_model.norm.weight"
    assert text.weights[name].stored is not None
    assert text.weights[name].stored.name == "model.norm.weight"  # as published files have it


def test_names_of_today_are_read_too(folder: Path) -> None:
    model = qwen_edit.load_streamed(folder)
    stored = next(part.stored for part in model.parts if part.name == "text_encoder")
    assert stored is not None
    assert stored.name_of is not None
    own = [name for name, _ in stored.home.named_parameters()]
    assert [stored.name_of(name) for name in own] == own


def test_lent_weights_answer_as_loaded_ones(folder: Path) -> None:
    loaded, streamed = qwen_edit.load(folder), qwen_edit.load_streamed(folder)
    for name in ("vision_encoder", "transformer"):
        part = next(part for part in loaded.parts if part.name == name)
        other = next(part for part in streamed.parts if part.name == name)
        assert part.given is not None
        feeds = next(iter(part.given()))
        tensors = [torch.from_numpy(feeds[spec.name]) for spec in part.signature.inputs]
        with torch.no_grad(), lent_weights(streamed):
            answer = other.module(*tensors)
        with torch.no_grad():
            expected = part.module(*tensors)
        # equal but for the order of sums, which depends on where in memory a matrix begins
        assert torch.allclose(answer, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("word", "model", "words", "instead"),
    [
        ("--lora", {"lora": "x.safetensors"}, {}, "a LoRA is merged into a copy: --weights copy"),
        ("--storage float32", {}, {"storage": "float32"}, "a copy can be widened: --weights copy"),
        ("--attention", {}, {"attention": "plain"}, "leave it out: attention is fused in such a graph"),
        ("--simplify", {}, {"simplify": "auto"}, "leave it out: such a graph is tidied already"),
        (
            "--compress",
            {},
            {"compress": ["int8-dynamic"]},
            "build without --weights, on a machine that holds the model",
        ),
        ("--custom-op", {}, {"custom_ops": "ops.py:OPS"}, "build without --weights"),
    ],
)
def test_what_does_not_go_with_references_is_refused_before_anything_is_loaded(
    word: str, model: dict[str, Any], words: dict[str, Any], instead: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        check_words(plan_of(tmp_path / "nowhere", model, **words))
    assert caught.value.what == f"{word} does not go with --weights reference"
    assert caught.value.do == instead


@pytest.mark.parametrize(
    ("model", "words"),
    [({"lora": "x.safetensors"}, {}), ({}, {"storage": "float32"}), ({}, {"attention": "plain"}), ({}, {})],
)
def test_a_copy_goes_with_what_changes_weights(
    model: dict[str, Any], words: dict[str, Any], tmp_path: Path
) -> None:
    check_words(plan_of(tmp_path, model, weights="copy", **words))


def test_a_source_that_loads_its_own_weights_is_refused(tmp_path: Path) -> None:
    description = describe(
        {
            "model": {"source": "model.py:make"},
            "inputs": {"x": "float32[2]"},
            "outputs": {"y": "float32[2]"},
            "build": {"weights": "copy"},
        },
        "test",
    )
    with pytest.raises(UsageError) as caught:
        build(BuildPlan(description, tmp_path, tmp_path / "m.port", BuildSettings()), silent)
    assert caught.value.what == "the weights of 'model.py:make' cannot be streamed"
    assert caught.value.where == "--weights"
    assert not list(tmp_path.iterdir())


def test_a_weight_that_is_missing_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    spoiled = tmp_path / "spoiled" / "Tiny-Edit"
    write_folder(spoiled)
    file = spoiled / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["transformer_blocks.1.attn.to_q.weight"]
    save_file(weights, file)
    plan = plan_of(spoiled)
    with pytest.raises(SourceError, match=r"'transformer_blocks\.1\.attn\.to_q\.weight'"):
        build(replace(plan, settings=replace(plan.settings, max_cases=1)), silent)
    assert [path.name for path in spoiled.parent.iterdir()] == ["Tiny-Edit"]


def test_files_that_lie_in_several_places_are_not_referred_to(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "here" / "Tiny-Edit")
    (tmp_path / "elsewhere").mkdir()
    (folder / "transformer").rename(tmp_path / "elsewhere" / "transformer")
    (folder / "transformer").symlink_to(tmp_path / "elsewhere" / "transformer")
    with pytest.raises(UsageError) as caught:
        build(plan_of(folder), silent)
    assert caught.value.what == (
        "the files of 'Tiny-Edit' are links to other places, and a bundle names one folder"
    )
    assert caught.value.do == "put the files themselves into one folder, or --weights copy"
    assert [path.name for path in folder.parent.iterdir()] == ["Tiny-Edit"]
    (tmp_path / "link").symlink_to(folder.parent)
    (folder / "transformer").unlink()
    (tmp_path / "elsewhere" / "transformer").rename(folder / "transformer")
    check_references(
        qwen_edit.load_streamed(tmp_path / "link" / "Tiny-Edit")
    )  # one link above all is nothing


def test_doubles_are_told_before_the_first_export(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "Tiny-Edit")
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["img_in.weight"] = weights["img_in.weight"].double()
    save_file(weights, file)
    with pytest.raises(UsageError) as caught:
        check_references(qwen_edit.load_streamed(folder))
    assert caught.value.what == "'img_in.weight' is stored in F64, and a graph computes in float32"
    assert (caught.value.where, caught.value.do) == ("part transformer", "--weights copy converts it")
