"""Builds that never load their weights: proven, opened where the checkpoint is, refused where it is not."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from anyport.build import BuildPlan, build, describe, streamed_part
from anyport.build.steps import load_model
from anyport.bundle import open_bundle
from anyport.errors import MismatchError, SessionError
from anyport.recipe import qwen_edit
from anyport.recipe.adapters import adapter_from
from anyport.runtime import SessionOptions, open_session
from anyport.task import open_task
from anyport.verify import Status, verify_bundle
from tests.build.building import QUICK, silent
from tests.recipe.loras import write_lora
from tests.recipe.qwen_folders import SIZES, make_transformer, write_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anyport.build import BuildResult
    from anyport.build.parts import ProvenPart
    from anyport.graph.streamed import Translated
    from anyport.recipe.adapters import Adapter

HOW = replace(QUICK, max_cases=8, max_case_bytes=64 << 10, allow=frozenset({"unproven-task"}))
SCALE = 0.5
LORA = "fast.safetensors"


@dataclass(frozen=True)
class Built:
    """A pipeline, what was built of it, and what the build said."""

    folder: Path
    result: BuildResult
    told: tuple[str, ...]


def built_from(folder: Path, how: Any = HOW, **words: Any) -> Built:
    model = {"source": folder.name, "name": "tiny", **words.pop("model", {})}
    plan = BuildPlan(
        describe({"model": model, "build": words}, "test"), folder.parent, folder.parent / "e.port", how
    )
    told: list[str] = []
    return Built(folder, build(plan, lambda step, line: told.append(f"{step}: {line}")), tuple(told))


def in_the_cache_of_a_hub(folder: Path, cache: Path) -> Path:
    """Move the files into blobs, and leave a snapshot of links."""
    snapshot = cache / "snapshots" / "Tiny-Edit"
    (cache / "blobs").mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        file.rename(cache / "blobs" / f"{number:064d}")
        link.symlink_to(cache / "blobs" / f"{number:064d}")
    return snapshot


@pytest.fixture(scope="module", name="referred")
def _referred(tmp_path_factory: pytest.TempPathFactory) -> Built:
    place = tmp_path_factory.mktemp("referred")
    snapshot = in_the_cache_of_a_hub(write_folder(place / "made"), place / "hub")
    return built_from(snapshot, replace(HOW, allow=frozenset()), weights="reference")


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("copied") / "Tiny-Edit")
    write_lora(folder.parent / LORA, make_transformer(SIZES["tiny"]))
    return folder


def copied_transformer(folder: Path, output: Path) -> ProvenPart:
    """Export and prove one part of a copy with a LoRA."""
    words = {"model": {"source": folder.name, "lora": f"{LORA}:{SCALE}"}, "build": {"weights": "copy"}}
    plan = BuildPlan(describe(words, "test"), folder.parent, output / "e.port", HOW)
    model = load_model(plan, silent)
    part = next(part for part in model.parts if part.name == "transformer")
    return streamed_part.export_streamed(model, part, plan, silent, output)


def test_a_build_that_refers_to_a_checkpoint_is_proven_whole(referred: Built) -> None:
    result = referred.result
    assert {verdict.status for verdict in result.verdicts} == {Status.PASS}
    whole = next(verdict for verdict in result.verdicts if verdict.part.name == "(whole task)")
    assert whole.part.variant == "fp32"
    assert sum(line.startswith("original: answered") for line in referred.told) == 7
    lines = {verdict.part.name: verdict.leg("values") for verdict in result.verdicts if verdict.findings}
    for name in ("text_encoder", "transformer"):
        assert lines[name].line.endswith("in 2 blocks")
        assert any(text.startswith("as a whole: worst ") for text in lines[name].details)
    assert "in 2 blocks" not in lines["vision_encoder"].line


def test_the_manifest_says_what_lies_outside(referred: Built) -> None:
    graphs = referred.result.manifest.variants["fp32"].graphs
    outside = {name for name, graph in graphs.items() if graph.external}
    assert outside == {"text_encoder", "transformer", "vision_encoder"}
    sizes = {shard.size_bytes for name in outside for shard in graphs[name].shards}
    files = [path for path in referred.folder.rglob("*.safetensors") if "vae" not in path.parts]
    assert sizes == {path.stat().st_size for path in files}
    text = "".join(
        path.read_bytes().decode("utf-8", "ignore")
        for path in referred.result.path.rglob("*")
        if path.is_file()
    )
    assert str(referred.folder.parent) not in text  # no path of this machine
    assert referred.result.weights_folder == (referred.folder.parents[1] / "blobs").resolve()
    step = next(step for step in referred.result.manifest.variants["fp32"].steps if step.verb == "export")
    assert step.settings["weights"] == "reference"


def test_it_proves_itself_again_beside_its_checkpoint(referred: Built) -> None:
    with open_bundle(referred.result.path) as bundle:
        options = SessionOptions(weights_folder=referred.folder, whole_digest=True)
        verdicts = list(verify_bundle(bundle, lambda graph: open_session(graph, options)))
        assert len(verdicts) == 6  # five parts and the whole task
        assert {verdict.status for verdict in verdicts} == {Status.PASS}


def test_it_opens_nowhere_else(referred: Built, tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="the weights are not in the bundle: it refers to 1 files"):
        open_task(referred.result.path)
    other = tmp_path / "other"
    shutil.copytree(referred.folder, other)  # links become files with other names
    with pytest.raises(SessionError, match="the weights lack the file"):
        open_task(referred.result.path, weights=other)


def test_a_shard_that_was_changed_is_named(referred: Built, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    shutil.copytree(referred.folder.parents[1] / "blobs", blobs)
    shard = referred.result.manifest.variants["fp32"].graphs["transformer"].shards[0]
    file = blobs / shard.file
    content = bytearray(file.read_bytes())
    content[-shard.size_bytes // 2 :] = bytes(shard.size_bytes // 2)
    file.write_bytes(content)
    with pytest.raises(SessionError) as caught:
        open_task(referred.result.path, weights=blobs)
    assert f"'{shard.file}' was changed since the graph was made" in caught.value.what


def asked(folder: Path, adapters: Sequence[Adapter] = ()) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
    """Return a case of the transformer, and what PyTorch answers with all weights loaded."""
    model = qwen_edit.load_adapted(folder, adapters)
    part = next(part for part in model.parts if part.name == "transformer")
    assert part.given is not None
    feeds = next(iter(part.given()))
    with torch.no_grad():
        answer = part.module(*[torch.from_numpy(feeds[spec.name]) for spec in part.signature.inputs])
    return feeds, answer.numpy()


def test_a_copy_has_its_lora_in_its_weights(folder: Path, tmp_path: Path) -> None:
    proven = copied_transformer(folder, tmp_path)
    assert proven.verdict.status is Status.PASS
    feeds, expected = asked(folder, [adapter_from(f"{LORA}:{SCALE}", folder.parent)])
    session = open_session(proven.graph.path, SessionOptions())
    answer = session.run(feeds)["velocity"]
    session.close()
    scale = float(np.abs(expected).max())
    assert np.abs(answer - expected).max() < 1e-5 * scale  # roundings of two blocks
    assert np.abs(expected - asked(folder)[1]).max() > 1e-2 * scale  # the LoRA counts
    assert not proven.entry.external
    assert sum(f"the LoRA '{LORA}'" in line for line in proven.steps[0].settings["cures"]) == 1


def test_a_weight_in_the_place_of_another_is_found_and_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = streamed_part.translate_part

    def spoiled(part: Any, source: Any, opset: int) -> Translated:
        found = good(part, source, opset)
        name = next(one for one in found.merged if one.endswith("transformer_blocks.1.attn.to_q.weight"))
        return replace(found, merged={**found.merged, name: found.merged[name.replace("to_q", "to_k")]})

    monkeypatch.setattr(streamed_part, "translate_part", spoiled)
    with pytest.raises(MismatchError) as caught:
        copied_transformer(folder, tmp_path)
    assert "part transformer, variant fp32" in str(caught.value.where)
    assert "differs in block 'transformer.transformer_blocks.1'" in str(caught.value.where)


def test_words_of_progress_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(streamed_part.time, "monotonic", lambda: clock[0])
    told: list[str] = []
    proving = streamed_part.Proving(QUICK, 1, lambda step, text: told.append(f"{step} {text}"))
    for second in range(50):
        clock[0] = float(second)
        proving.told(f"block {second}")
    assert told == ["verify block 20", "verify block 40"]
