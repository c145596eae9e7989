"""The plan of Qwen-Image-Edit-2509 from its configurations and indexes, held against arithmetic."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anyport.build import BuildPlan, BuildSettings, build, describe
from anyport.build import estimate as room
from anyport.build.costs import BuildCost, Speed
from anyport.build.estimate import estimate_build
from anyport.errors import SourceError
from tests.build.building import silent
from tests.build.edit_bundle import HOW, tiny
from tests.build.published_edit import write_published

if TYPE_CHECKING:
    from pathlib import Path

WIDTH, TEXT, EYES = 3072, 3584, 1280
# of a block: 8 projections of attention, 12 of modulation, 16 of two networks of 4 x the width
TRANSFORMER = 60 * 36 * WIDTH**2
LANGUAGE = 28 * (2 * TEXT**2 + 2 * TEXT * 512 + 3 * TEXT * 18944) + 152064 * TEXT
VISION = 32 * (4 * EYES**2 + 3 * EYES * 3420) + (4 * EYES) ** 2 + 4 * EYES * TEXT + EYES * 3 * 2 * 14 * 14
STORED = {"text_encoder": 16_584_333_312, "transformer": 40_860_802_176}  # as the published indexes say
VAE = 126_892_531  # parameters


@pytest.fixture(autouse=True)
def _speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "measure_speed", lambda: Speed(1e11, 5e10))
    monkeypatch.setattr(room, "free_memory_bytes", lambda: 64_000_000_000)
    monkeypatch.setattr(room, "_free_bytes", lambda _: 50_000_000_000)


def plan(folder: Path, how: BuildSettings) -> BuildPlan:
    description = describe({"model": {"source": folder.name}}, "test")
    return BuildPlan(description, folder.parent, folder.parent / "edit.port", how)


@pytest.fixture(scope="module", name="published")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("hub") / "Qwen-Image-Edit-2509")


@pytest.fixture(scope="module", name="cost")
def _cost(published: Path) -> BuildCost:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "measure_speed", lambda: Speed(1e11, 5e10))
        patch.setattr(room, "free_memory_bytes", lambda: 64_000_000_000)
        patch.setattr(room, "_free_bytes", lambda _: 50_000_000_000)
        return estimate_build(plan(published, BuildSettings(max_cases=1)))


def test_parameters_and_disk(cost: BuildCost) -> None:
    parts = {part.name: part for part in cost.parts}
    wanted = {"vision_encoder": VISION, "text_encoder": LANGUAGE, "transformer": TRANSFORMER}
    for name, n_parameters in wanted.items():
        assert parts[name].n_parameters == pytest.approx(n_parameters, rel=5e-3)
        assert parts[name].disk_bytes == pytest.approx(2 * n_parameters, rel=0.01), "16 bits stay 16 bits"
    assert parts["transformer"].n_parameters == STORED["transformer"] / 2
    assert cost.bundle_bytes == cost.disk_bytes == pytest.approx(2 * sum(wanted.values()), rel=0.01)
    # a kernel over time is folded to its last tap: a third of most weights
    assert VAE / 4 < sum(parts[name].n_parameters for name in ("vae_encoder", "vae_decoder")) < VAE / 2


def test_what_will_be_read(cost: BuildCost) -> None:
    assert cost.files is not None
    assert cost.files.size_bytes == cost.files.absent_bytes == sum(STORED.values())
    assert (len(cost.files.absent), cost.files.unsized) == (7, ("vae",))
    record = cost.to_json()["weight_files"]
    assert (record["is_here"], record["sizes"], record["unsized"]) == (False, {}, ["vae"])
    assert record["absent"][0] == "text_encoder/model-00001-of-00002.safetensors"


def test_memory_and_time(cost: BuildCost) -> None:
    held = 4 * (sum(STORED.values()) / 2 + VAE)  # with the head for words and the folded kernels
    assert cost.model_bytes == pytest.approx(held, rel=2e-3)
    least = 0.65e9 + 1.2 * held + 2 * STORED["transformer"] * 2
    # the text branch of the last block is read, and not kept
    assert 0.998 * least < cost.memory_bytes < 1.03 * least
    assert (cost.largest_part, cost.lacks) == ("transformer", ("disk", "memory"))
    assert cost.whole is not None
    graphs = 2 * sum(part.weight_bytes for part in cost.parts)  # open, they are float32
    assert 1.1 * graphs < cost.whole.memory_bytes < 1.2 * graphs
    # 4 steps of 2 with guidance, over 35 + 48 tokens of pictures and about 250 of words, at the least
    least_s = 2 * 1.3 * 8 * 2 * TRANSFORMER * 250 / 1e11
    assert cost.whole.time_s > least_s
    assert cost.time_s > cost.whole.time_s + sum(part.time_s for part in cost.parts)


def test_the_proof_of_the_whole_task_is_counted(cost: BuildCost) -> None:
    assert cost.whole is not None
    without = replace(cost, whole=None)
    assert cost.time_s - without.time_s == pytest.approx(cost.whole.time_s)
    assert cost.bundle_bytes - without.bundle_bytes == cost.whole.proof_bytes
    more = replace(cost, whole=replace(cost.whole, memory_bytes=10**12))
    assert (more.largest_part, more.memory_bytes - cost.memory_bytes > 10**11) == ("(whole task)", True)


def test_no_weight_need_be_loaded(cost: BuildCost) -> None:
    """What a laptop needs for 28 billion parameters: the autoencoder, and one weight of the others."""
    assert list(cost.ways) == ["reference", "copy"]
    reference, copy = cost.ways.values()
    assert (reference.lacks, copy.lacks) == ((), ("disk",))
    assert reference.model_bytes == copy.model_bytes < 4 * 2 * VAE
    assert reference.disk_bytes < 0.3e9
    # the last block's text branch is not in the graph
    assert copy.disk_bytes == pytest.approx(cost.disk_bytes, rel=0.01)
    words = {part.name: part for part in reference.parts}["text_encoder"]
    # the table of words is read as it is, and becomes float64
    assert words.memory_bytes > 152064 * TEXT * (2 + 8)
    denoiser = {part.name: part for part in reference.parts}["transformer"]
    assert denoiser.export_memory_bytes == pytest.approx(0.946 * 2**30, rel=0.05), "bench/streamed.py"
    assert denoiser.stored is not None
    assert denoiser.stored.n_bytes == STORED["transformer"]
    assert [part.name for part in copy.parts if part.stored is None] == ["vae_encoder", "vae_decoder"]
    assert cost.ways_out(cost.lacks)[0].startswith("--weights reference: memory ")


def test_a_build_needs_the_weights(published: Path) -> None:
    with pytest.raises(SourceError) as caught:
        build(plan(published, HOW), silent)
    assert caught.value.what == (
        "'Qwen-Image-Edit-2509' lacks 2 of its 2 files of weights: "
        "'text_encoder/model-00001-of-00002.safetensors', 'text_encoder/model-00002-of-00002.safetensors'"
    )
    assert caught.value.where == "text_encoder/model.safetensors.index.json names them"
    assert [path.name for path in published.parent.iterdir()] == [published.name]


def test_a_build_needs_what_its_plan_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    built = tiny(tmp_path_factory)
    cost = estimate_build(plan(built.folder, HOW))
    sizes = {entry.path: entry.size_bytes for entry in built.result.manifest.files}
    assert cost.whole is not None
    # of the last part nothing is recorded: its answer is the picture
    assert cost.whole.proof_bytes == pytest.approx(sizes["proof/task.safetensors"], rel=0.15)
    assert cost.bundle_bytes == pytest.approx(sum(sizes.values()), rel=0.3)
    assert cost.to_json()["whole_task"]["n_requests"] == 7
    left_out = estimate_build(plan(built.folder, replace(HOW, allow=frozenset({"unproven-task"}))))
    assert left_out.whole is left_out.to_json()["whole_task"] is None
    assert left_out.time_s < cost.time_s
