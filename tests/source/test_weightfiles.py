"""Which files a checkpoint is read from: chosen as transformers chooses, and refused where one is missing."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import save_file

from anyport.errors import SourceError
from anyport.source import planned_files, weight_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
AGAIN = "  do:    download the checkpoint again; all files must come from one version of it"


def write_shards(folder: Path, prefix: str = "model") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = [name.replace("model", prefix) for name in SHARDS]
    for name in names:
        save_file({name: np.zeros(4, np.float32)}, folder / name)
    index = {"weight_map": {name: name for name in names}}
    (folder / f"{prefix}.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def failure(checkpoint: Path | str) -> str:
    with pytest.raises(SourceError) as caught:
        weight_files(checkpoint)
    return str(caught.value)


def test_one_file_comes_before_shards_and_safetensors_before_pickles(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    assert list(weight_files(tmp_path).sizes) == list(SHARDS)
    save_file({"w": np.zeros(4, np.float32)}, tmp_path / "model.safetensors")
    found = weight_files(tmp_path)
    assert list(found.sizes) == ["model.safetensors"]
    assert found.size_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert found.is_here


def test_a_pickle_and_a_single_file_are_sized_alone(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(70))
    assert weight_files(tmp_path).sizes == {"pytorch_model.bin": 70}
    (tmp_path / "model.pth").write_bytes(bytes(90))
    assert weight_files(tmp_path / "model.pth").sizes == {"model.pth": 90}


def test_a_pipeline_of_diffusers_has_weights_in_its_folders(tmp_path: Path) -> None:
    parts = {"_class_name": "Pipe", "transformer": ["a", "b"], "vae": ["a", "b"], "tokenizer": ["a", "b"]}
    (tmp_path / "model_index.json").write_text(json.dumps(parts), encoding="utf-8")
    for part in ("transformer", "vae"):
        write_shards(tmp_path / part, "diffusion_pytorch_model")
        (tmp_path / part / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "tokenizer").mkdir()
    assert len(weight_files(tmp_path).sizes) == 4
    lost = "vae/diffusion_pytorch_model-00002-of-00002.safetensors"
    (tmp_path / lost).unlink()
    assert failure(tmp_path).splitlines()[0] == (
        f"'{tmp_path.name}' lacks 1 of its 2 files of weights: '{lost}'"
    )


@pytest.mark.parametrize(
    ("lost", "listed", "them"),
    [(SHARDS[1:], f"1 of its 2 files of weights: '{SHARDS[1]}'", "it"),
     (SHARDS, f"2 of its 2 files of weights: '{SHARDS[0]}', '{SHARDS[1]}'", "them")],
)  # fmt: skip
def test_a_missing_shard_is_named(lost: Sequence[str], listed: str, them: str, tmp_path: Path) -> None:
    folder = tmp_path / "big"
    write_shards(folder)
    for name in lost:
        (folder / name).unlink()
    assert failure(folder) == (
        f"'big' lacks {listed}\n  where: model.safetensors.index.json names {them}\n{AGAIN}"
    )


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    path = tmp_path / SHARDS[0]
    path.write_bytes(path.read_bytes()[:-4])
    assert f"'{SHARDS[0]}' is no safetensors file" in failure(tmp_path)
    assert failure(tmp_path).endswith(f"  where: {SHARDS[0]}\n{AGAIN}")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert failure(folder) == (
        f"'empty' has no weights: neither model.safetensors nor another file that is known\n{AGAIN}"
    )


@pytest.mark.parametrize(
    ("index", "text"),
    [
        ("{", "'model.safetensors.index.json' cannot be read: "),
        ("[]", "'model.safetensors.index.json' names no weights: it has no 'weight_map'"),
        ('{"weight_map": {"w": "../w.safetensors"}}',
         "'model.safetensors.index.json' names the file '../w.safetensors', which does not lie beside it"),
    ],
)  # fmt: skip
def test_a_wrong_index_is_refused(index: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    assert failure(tmp_path).startswith(text)


def listing(**sizes: int) -> Any:
    files = [SimpleNamespace(rfilename=name.replace("__", "."), size=size) for name, size in sizes.items()]
    return lambda _self, _name, **_options: SimpleNamespace(siblings=files)


@pytest.fixture(name="cache")
def _cache(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    known: dict[str, str] = {}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda _name, file: known.get(file))
    return known


@pytest.mark.usefixtures("cache")
def test_the_hub_is_asked_for_sizes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", listing(model__safetensors=990, x__bin=9))
    found = weight_files("some/model")
    assert (found.sizes, found.is_here) == ({"model.safetensors": 990}, False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", listing(x__bin=9))
    assert failure("some/model").startswith("'some/model' has no weights: ")


@pytest.mark.usefixtures("cache")
def test_a_hub_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", offline)
    assert failure("some/model") == (
        "'some/model' is no folder here, and the Hugging Face hub does not say how large it is: no route\n"
        "  do:    download it first (hf download), and give the folder"
    )


def test_what_is_downloaded_already_is_not_downloaded_again(
    cache: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path)
    index = "model.safetensors.index.json"
    cache[index] = str(tmp_path / index)
    assert weight_files("some/model").is_here
    (tmp_path / SHARDS[0]).unlink()  # the download was interrupted
    sizes = {SHARDS[0]: 50, SHARDS[1]: 60, index: 7}
    files = [SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
    answer = SimpleNamespace(siblings=files)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda _self, _name, **_options: answer)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _name, file: str(tmp_path / file))
    found = weight_files("some/model")
    assert (found.size_bytes, found.is_here) == (110, False)


def outlined(folder: Path, size: Any = 10_000) -> Path:
    """Write a pipeline of which only small files were downloaded; its autoencoder has no index."""
    index = {"_class_name": "Pipe", "transformer": ["a", "b"], "vae": ["a", "b"], "tokenizer": ["a", "b"]}
    for part in ("transformer", "vae"):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    words = {"weight_map": {name: name for name in SHARDS}, "metadata": {"total_size": size}}
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps(words), encoding="utf-8")
    return folder


def test_indexes_alone_are_enough_for_a_plan(tmp_path: Path) -> None:
    folder = outlined(tmp_path / "pipe")
    found = planned_files(folder)
    assert found.absent == tuple(f"transformer/{name}" for name in SHARDS)
    assert (found.sizes, found.size_bytes, found.unsized) == ({}, 10_000, ("vae",))
    assert failure(folder).startswith("'pipe' lacks 2 of its 2 files of weights: 'transformer/model-00001")


def test_whole_folders_are_planned_as_they_are_built(tmp_path: Path) -> None:
    write_shards(tmp_path / "big")
    assert planned_files(tmp_path / "big") == weight_files(tmp_path / "big")
    save_file({"w": np.zeros(4, np.float32)}, tmp_path / "model.safetensors")
    assert planned_files(tmp_path / "model.safetensors") == weight_files(tmp_path / "model.safetensors")


@pytest.mark.parametrize("size", [None, 0, "57 GB", True])
def test_an_index_that_does_not_say_how_large_all_is_is_not_enough(size: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="^'pipe' lacks 2 of its 2 files of weights"):
        planned_files(outlined(tmp_path / "pipe", size))


def test_an_interrupted_download_is_no_plan(tmp_path: Path) -> None:
    folder = outlined(tmp_path / "pipe")
    save_file({"w": np.zeros(4, np.float32)}, folder / "transformer" / SHARDS[0])
    with pytest.raises(SourceError) as caught:
        planned_files(folder)
    assert caught.value.what == f"'pipe' lacks 1 of its 2 files of weights: 'transformer/{SHARDS[1]}'"


def test_a_pipeline_in_the_cache_is_not_downloaded_again(cache: dict[str, str], tmp_path: Path) -> None:
    folder = outlined(tmp_path / "pipe")
    for name in SHARDS:
        save_file({"w": np.zeros(4, np.float32)}, folder / "transformer" / name)
    save_file({"w": np.zeros(4, np.float32)}, folder / "vae" / "diffusion_pytorch_model.safetensors")
    cache["model_index.json"] = str(folder / "model_index.json")
    found = planned_files("some/pipe")
    assert (len(found.sizes), found.is_here) == (3, True)
