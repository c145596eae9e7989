"""A folder of diffusers is checked before anything is loaded; what is missing is named."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file, save_file

from anyport.errors import SourceError
from anyport.recipe.qwen_edit_folder import open_folder, read_json, stored_halves
from tests.recipe.qwen_folders import SIZES, make_transformer, write_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("hub") / "Tiny-Edit")


@pytest.fixture(name="folder")
def _folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "Tiny-Edit")


def failure(folder: Path) -> str:
    with pytest.raises(SourceError) as caught:
        open_folder(folder)
    return str(caught.value)


def test_a_whole_folder_is_opened(saved: Path) -> None:
    assert open_folder(saved) == saved
    assert open_folder(str(saved)) == saved


@pytest.mark.parametrize(
    "name",
    [
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/config.json",
    ],
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert failure(folder) == (
        f"'Tiny-Edit' lacks {name}\n"
        "  do:    download the whole pipeline again: hf download NAME --local-dir FOLDER"
    )


def test_small_files_are_enough_for_an_outline(folder: Path) -> None:
    for path in folder.glob("*/*.safetensors"):
        path.unlink()
    assert open_folder(folder, with_weights=False) == folder
    assert failure(folder).startswith("'Tiny-Edit' lacks text_encoder/model.safetensors and 2 more files\n")
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(SourceError, match="^'Tiny-Edit' lacks vae/config.json\n"):
        open_folder(folder, with_weights=False)


def test_a_missing_component_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    assert failure(folder).startswith("'Tiny-Edit' lacks vae/config.json and 1 more files\n")


def test_a_missing_shard_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "transformer")
    make_transformer(SIZES["tiny"]).save_pretrained(folder / "transformer", max_shard_size="500KB")
    shards = sorted((folder / "transformer").glob("*-of-*.safetensors"))
    assert len(shards) > 2
    assert open_folder(folder) == folder
    shards[1].unlink()
    assert failure(folder).startswith(f"'Tiny-Edit' lacks transformer/{shards[1].name}\n")


def test_settings_must_be_json(folder: Path) -> None:
    (folder / "vae" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(SourceError, match="^vae/config.json is no JSON: Expecting property name"):
        read_json(folder / "vae" / "config.json")
    (folder / "vae" / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(SourceError, match="^vae/config.json is a list, not an object$"):
        read_json(folder / "vae" / "config.json")


def test_halves_are_found_in_the_headers(folder: Path) -> None:
    assert stored_halves(folder, "vae") == ()
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    first = next(iter(weights))
    save_file({name: x.bfloat16() if name == first else x.half() for name, x in weights.items()}, path)
    assert stored_halves(folder, "vae") == ("bfloat16", "float16")
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(SourceError, match="^vae/diffusion_pytorch_model.safetensors is no safetensors file$"):
        stored_halves(folder, "vae")
    path.write_bytes(json.dumps([]).encode().rjust(10, b"\0"))
    with pytest.raises(SourceError):
        stored_halves(folder, "vae")
