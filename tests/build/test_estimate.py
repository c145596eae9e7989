"""What a plan says is held against what a build then needs; nothing of it comes from weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from anyport.build import BuildPlan, BuildSettings, build, describe
from anyport.build import estimate as room
from anyport.build.costs import BuildCost, Speed
from anyport.build.estimate import estimate_build
from anyport.build.steps import load_model
from anyport.build.workload import workload_of
from anyport.errors import SourceError, UsageError
from anyport.source import outline_model
from tests.build.building import QUICK, plan_for, silent
from tests.recipe.blip_folders import tiny_model, write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from torch.nn import Parameter

    from anyport.recipe import Model

CAPTION = "BlipForConditionalGeneration"


@pytest.fixture(autouse=True)
def _speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "measure_speed", lambda: Speed(2e10, 1e10))


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(CAPTION, tmp_path_factory.mktemp("plan") / "tiny", n_layers=1)


def plan(folder: Path, output: Path, how: BuildSettings = QUICK, **tables: Any) -> BuildPlan:
    words = {"model": {"source": folder.name}} | tables
    return BuildPlan(describe(words, "test"), folder.parent, output, how)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_checkpoint_of_16_bits_stays_as_large(saved: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    folder = tmp_path / "halves"
    shutil.copytree(saved, folder)
    weights = load_file(folder / "model.safetensors")
    narrow = {name: one.to(dtype) if one.is_floating_point() else one for name, one in weights.items()}
    save_file(narrow, folder / "model.safetensors", metadata={"format": "pt"})
    whole, half = (estimate_build(plan(one, tmp_path / "m.port")) for one in (saved, folder))
    widened = estimate_build(plan(folder, tmp_path / "m.port", build={"storage": "float32"}))
    for exact, stored, wide in zip(whole.parts, half.parts, widened.parts, strict=True):
        assert stored.weight_bytes == pytest.approx(exact.weight_bytes / 2, rel=0.1)
        assert wide.weight_bytes == exact.weight_bytes
        assert stored.memory_bytes == exact.memory_bytes


def test_the_disk_is_that_of_the_build(saved: Path, tmp_path: Path) -> None:
    """Proof and graphs weigh more than the weights here; with real weights both are a hundredth."""
    wanted = plan(saved, tmp_path / "tiny.port", replace(QUICK, max_cases=24))
    cost = estimate_build(wanted)
    manifest = build(wanted, silent).manifest
    sizes = {entry.path: entry.size_bytes for entry in manifest.files}
    for part in cost.parts:
        files = ("model.onnx", "modules.json", "weights.safetensors")
        needed = sum(sizes[f"parts/{part.name}/fp32/{name}"] for name in files)
        assert part.weight_bytes + part.graph_bytes == pytest.approx(needed, rel=0.15)
    assert cost.bundle_bytes == pytest.approx(sum(sizes.values()), rel=0.3)
    assert cost.asset_bytes == sizes["assets/tokenizer.json"]
    assert [(part.name, part.n_cases) for part in cost.parts] == [
        ("vision_encoder", 12),
        ("cross_keys", 19),
        ("text_decoder", 24),
    ]


def test_no_weight_is_read(saved: Path, tmp_path: Path) -> None:
    """The header stays, and the numbers behind it become what no model could be loaded from."""
    folder = write_folder(CAPTION, tmp_path / "tiny", n_layers=1)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:start] + b"\xff" * (len(content) - start))
    assert known(estimate_build(plan(folder, tmp_path / "m.port"))) == known(
        estimate_build(plan(saved, tmp_path / "m.port"))
    )


def known(cost: BuildCost) -> dict[str, Any]:
    """Return what does not change from one moment to the next."""
    record = cost.to_json()
    del record["free_bytes"], record["free_memory_bytes"], record["lacks"]
    return record


def test_a_missing_shard_is_told_by_plan_and_build_alike(tmp_path: Path) -> None:
    folder = write_folder(CAPTION, tmp_path / "shards")
    tiny_model(CAPTION).save_pretrained(folder, max_shard_size="100KB")
    (folder / "model.safetensors").unlink()
    shards = sorted(folder.glob("model-*.safetensors"))
    found = estimate_build(plan(folder, tmp_path / "m.port"))
    assert found.files is not None
    assert list(found.files.sizes) == [shard.name for shard in shards]
    shards[1].unlink()
    text = f"'shards' lacks 1 of its {len(shards)} files of weights: '{shards[1].name}'"
    for step in (estimate_build, lambda wanted: build(wanted, silent)):
        with pytest.raises(SourceError) as caught:
            step(plan(folder, tmp_path / "m.port"))
        assert caught.value.what == text
        assert caught.value.where == "model.safetensors.index.json names it"
    assert not list(tmp_path.glob("*m.port*"))


def test_compression_adds_its_variants(saved: Path, tmp_path: Path) -> None:
    exact = estimate_build(plan(saved, tmp_path / "m.port"))
    both = estimate_build(plan(saved, tmp_path / "m.port", build={"compress": ["int8", "fp16"]}))
    weights = sum(part.weight_bytes for part in exact.parts)
    assert list(both.variants) == ["int8", "fp16"]
    assert both.variants["fp16"] == weights // 2
    assert weights / 4 < both.variants["int8"] < weights / 3
    assert both.bundle_bytes == exact.bundle_bytes + sum(both.variants.values())
    assert both.disk_bytes > both.bundle_bytes, "candidates lie beside each other while they are tried"
    with pytest.raises(UsageError, match=r"^there is no method 'int9' \(did you mean 'int8'\?\)"):
        estimate_build(plan(saved, tmp_path / "m.port", build={"compress": ["int9"]}))


def test_more_cases_and_larger_ones_cost_more(saved: Path, tmp_path: Path) -> None:
    few, many, large = (
        estimate_build(plan(saved, tmp_path / "m.port", BuildSettings(max_cases=n, max_case_bytes=size)))
        for n, size in ((8, 4 << 20), (24, 4 << 20), (24, 64 << 20))
    )
    assert few.time_s < many.time_s <= large.time_s
    assert few.bundle_bytes < many.bundle_bytes
    assert few.memory_bytes <= many.memory_bytes <= large.memory_bytes


def test_half_the_speed_is_twice_the_products(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = estimate_build(plan(saved, tmp_path / "m.port"))
    monkeypatch.setattr(room, "measure_speed", lambda: Speed(1e10, 5e9))
    slow = estimate_build(plan(saved, tmp_path / "m.port"))
    wanted = plan(saved, tmp_path / "m.port")
    parts = outline_model(wanted.request).parts
    n_flops = sum(run.n_flops for part in parts for run in workload_of(part, QUICK).runs)
    assert n_flops > 1e6
    # 1.3 x (twice in float32, once in float64), and all that again at half the speed
    assert slow.time_s - fast.time_s == pytest.approx(1.3 * n_flops * (2 / 2e10 + 1 / 1e10), rel=1e-6)
    assert slow.bundle_bytes == fast.bundle_bytes


def test_the_parts_are_those_of_the_task_that_is_built(tmp_path: Path) -> None:
    folder = write_folder("BlipForImageTextRetrieval", tmp_path / "tiny", n_layers=1)
    for task in (None, "embed"):
        words = {"source": folder.name} | ({"task": task} if task else {})
        wanted = plan(folder, tmp_path / "m.port", model=words)
        made, cost = load_model(wanted, silent), estimate_build(wanted)
        assert [part.name for part in cost.parts] == [part.name for part in made.parts]
        assert cost.task == made.task == (task or "match")
        assert cost.n_parameters == sum(p.numel() for p in _parameters(made))
    assert "itm_head" not in [part.name for part in cost.parts]


def _parameters(model: Model) -> list[Parameter]:
    """Return each once: parts may share some."""
    return list({id(p): p for part in model.parts for p in part.module.parameters()}.values())


def test_a_function_is_called_for_its_sizes(tmp_path: Path) -> None:
    cost = estimate_build(plan_for("scores_and_choice", tmp_path / "m.port"))
    assert (cost.files, cost.model, cost.task) == (None, "scores-and-choice", None)
    assert cost.n_parameters == cost.parts[0].n_parameters > 0


def test_a_fixed_axis_has_fewer_cases(tmp_path: Path) -> None:
    free = estimate_build(plan_for("dense", tmp_path / "m.port"))
    fixed = estimate_build(plan_for("dense", tmp_path / "m.port", build={"fix": {"batch": 1}}))
    assert fixed.memory_bytes < free.memory_bytes


def test_half_precision_on_disk_is_told_from_what_is_read(tmp_path: Path) -> None:
    folder = write_folder(CAPTION, tmp_path / "half", n_layers=1)
    path = folder / "model.safetensors"
    save_file({key: value.half() for key, value in load_file(path).items()}, path, {"format": "pt"})
    cost = estimate_build(plan(folder, tmp_path / "m.port"))
    assert cost.files is not None
    assert cost.files.size_bytes < cost.model_bytes * 0.6


def test_what_a_machine_lacks_is_said(saved: Path, tmp_path: Path) -> None:
    cost = estimate_build(plan(saved, tmp_path / "not" / "there" / "m.port"))
    assert cost.is_enough
    assert cost.free_bytes > 0
    small = replace(cost, free_bytes=10, free_memory_bytes=10)
    assert (small.lacks, small.is_enough) == (("disk", "memory"), False)
    assert small.to_json()["lacks"] == ["disk", "memory"]
    assert replace(cost, free_memory_bytes=None).is_enough, "where the system does not say"


def test_the_speed_is_measured() -> None:
    found = Speed(*(room._flops_per_s(dtype) for dtype in (room.torch.float32, room.torch.float64)))
    assert found.float32 > 1e7
    assert found.float64 > 1e7
