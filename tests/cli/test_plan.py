from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from anyport.build import estimate as room
from anyport.build import fitting
from anyport.build.costs import Speed
from tests.recipe.blip_folders import write_folder
from tests.recipe.blip_pth import original_model, original_weights, save
from tests.recipe.qwen_folders import write_folder as write_pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell

CAPTION = "BlipForConditionalGeneration"


@pytest.fixture(autouse=True)
def _speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "measure_speed", lambda: Speed(2e10, 1e10))


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(CAPTION, tmp_path_factory.mktemp("plan") / "tiny", n_layers=1)


def test_a_folder_is_planned_and_nothing_is_written(saved: Path, shell: Shell, tmp_path: Path) -> None:
    found = shell("plan", saved, "-o", tmp_path / "m.port", "--compress", "int8")
    assert (found.code, found.err) == (0, "")
    words = ["source", "read", "part", "vision_encoder", "cross_keys", "text_decoder"]
    needed = ["bundle", "int8", "disk", "memory", "time"]
    assert [line.split()[0] for line in found.out.splitlines()] == words + needed
    assert list(tmp_path.iterdir()) == []


def test_json(saved: Path, shell: Shell) -> None:
    record = shell("plan", saved, "--max-cases", 8, "--json").record
    assert record["weight_files"]["is_here"]
    assert [part["n_cases"] for part in record["parts"]][:1] == [8]
    assert record["bundle_bytes"] <= record["disk_bytes"] < record["free_bytes"]
    assert record["lacks"] == []
    assert record["time_s"] > 0
    assert record["flops_per_s"] == {"float32": 2e10, "float64": 1e10}


def test_an_original_file(shell: Shell, tmp_path: Path) -> None:
    save(tmp_path / "model.pth", {"model": original_weights(original_model(CAPTION))})
    words = [f"word{i}" for i in range(30522)]
    words[0], words[100], words[101], words[102] = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    found = shell("plan", tmp_path / "model.pth")
    assert (found.code, found.err) == (0, "")
    assert "model.pth" in found.out.splitlines()[1]


def test_a_project_folder_with_its_own_words(saved: Path, shell: Shell, tmp_path: Path) -> None:
    text = f'[model]\nname = "mine"\nsource = {json.dumps(str(saved))}\n[build]\ncompress = ["fp16"]\n'
    (tmp_path / "anyport.toml").write_text(text, encoding="utf-8")
    found = shell("plan", tmp_path)
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("  source    mine, ")
    assert "\n  fp16 " in found.out


def test_too_little_memory_is_exit_code_1(saved: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_memory_bytes", lambda: 1000)
    found = shell("plan", saved)
    assert (found.code, found.out.splitlines()[-1]) == (1, "  NOT ENOUGH memory")


def test_both_ways_of_streaming_are_planned(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pipeline(tmp_path / "Tiny-Edit")
    words = ("plan", folder, "-o", tmp_path / "m.port", "--max-cases", 3)
    record = shell(*words, "--json").record
    assert list(record["ways"]) == ["reference", "copy"]
    for way, found in record["ways"].items():
        alone = shell(*words, "--max-case-bytes", "256KiB", "--weights", way, "--json").record
        assert (alone["weights"], alone["ways"]) == (way, {})
        for key in ("parts", "bundle_bytes", "disk_bytes", "memory_bytes", "time_s"):
            assert found[key] == alone[key], "what is said of a way is what is said when it is taken"
    streamed = [part["name"] for part in record["ways"]["copy"]["parts"] if part["stored"]]
    assert streamed == ["vision_encoder", "text_encoder", "transformer"]
    monkeypatch.setattr(room, "free_memory_bytes", lambda: record["ways"]["copy"]["memory_bytes"] + 1)
    found = shell(*words)
    lines = found.out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("  streamed  vision_encoder "))
    assert [line.split()[0] for line in lines[start + 1 : start + 3]] == ["text_encoder", "transformer"]
    assert lines[start + 3].startswith(
        "            in all, with --weights reference or --weights copy: memory "
    )
    assert (found.code, lines[-2]) == (1, "  NOT ENOUGH memory")
    assert lines[-1].startswith("  do:       --weights reference: memory ")


def test_a_build_that_does_not_fit_is_refused_at_once(
    saved: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "free_memory_bytes", lambda *, with_swap: 1000)  # noqa: ARG005
    found = shell("build", saved, "-o", tmp_path / "m.port")
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("UsageError: the build needs about ")
    assert " of memory, and 1.0 kB are free, swap included\n  where: part " in found.err
    assert found.err.endswith("  do:    a machine with more memory\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["plan", "build"])
def test_wrong_words_are_refused_as_by_build(verb: str, saved: Path, shell: Shell, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "m.port")
    found = shell(verb, tmp_path, *out)
    assert found.code == 2
    assert "has neither an anyport.toml nor the config.json of a checkpoint" in found.err
    assert shell(verb, tmp_path / "no.pth", *out).code == 2
    assert "SourceError: there is no file 'no.pth'" in shell(verb, "no.pth", *out).err
    found = shell(verb, saved, *out, "--fix", "heigth=3")
    assert found.err.startswith("UsageError: --fix heigth=3: there is no axis 'heigth'")


@pytest.mark.parametrize("verb", ["plan", "build"])
def test_a_missing_shard_is_named(verb: str, shell: Shell, tmp_path: Path) -> None:
    folder = write_folder(CAPTION, tmp_path / "shards", n_layers=1)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    found = shell(verb, folder, "-o", tmp_path / "m.port")
    assert (found.code, found.out) == (2, "")
    assert found.err == (
        "SourceError: 'shards' lacks 2 of its 2 files of weights: "
        "'model-1.safetensors', 'model-2.safetensors'\n"
        "  where: model.safetensors.index.json names them\n"
        "  do:    download the checkpoint again; all files must come from one version of it\n"
    )
