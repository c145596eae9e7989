"""A bundle with a LoRA: the manifest names it, and its pictures are those of diffusers with it beside."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from anyport.build import BuildPlan, build, describe, estimate_build
from anyport.bundle import open_bundle
from anyport.errors import SourceError
from anyport.task import TaskOptions
from anyport.task.graphs import BundleGraphs
from anyport.task.opening import task_of
from anyport.verify import Status
from tests.build.building import silent
from tests.build.edit_bundle import HOW
from tests.recipe.loras import ALPHA, RANK, write_lora
from tests.recipe.qwen_folders import write_folder
from tests.task import qwen_edit, test_edit
from tests.task.qwen_edit import Case

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from anyport.build import BuildResult

SCALE = 0.5
CASE = Case("f", "make the sky red", "blurry", 4.0, (80, 64), 4)


@dataclass(frozen=True)
class Built:
    """A bundle, and the file that was merged into it."""

    lora: Path
    weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    result: BuildResult


def plan_with(folder: Path, lora: str, output: str = "fast.port") -> BuildPlan:
    words = {"model": {"source": folder.name, "lora": lora}}
    how = replace(HOW, max_cases=8)
    return BuildPlan(describe(words, "test"), folder.parent, folder.parent / output, how)


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("lora") / "Tiny-Edit")


@pytest.fixture(scope="module", name="built")
def _built(folder: Path) -> Built:
    lora = folder.parent / "lightning.safetensors"
    weights = write_lora(lora, qwen_edit.pipeline().transformer)
    return Built(lora, weights, build(plan_with(folder, f"{lora.name}:{SCALE}"), silent))


@contextmanager
def beside(weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]], scale: float) -> Iterator[None]:
    """Let each layer of diffusers' pipeline answer ``W x + scale * alpha / rank * up (down x)``."""

    def added(down: torch.Tensor, up: torch.Tensor) -> Any:
        factor = scale * ALPHA / RANK
        return lambda _, given, answer: answer + factor * (given[0] @ down.T @ up.T)

    with ExitStack() as stack:
        for name, pair in weights.items():
            layer = qwen_edit.pipeline(CASE.model).transformer.get_submodule(name)
            stack.callback(layer.register_forward_hook(added(*pair)).remove)
        yield


def picture_of_diffusers() -> np.ndarray:
    """Return what `qwen_edit.expected` does, and does not remember."""
    return np.asarray(qwen_edit.expected.__wrapped__(CASE))


def test_the_manifest_names_it(built: Built) -> None:
    variant = built.result.manifest.variants["fp32"]
    cures = {step.settings["part"]: step.settings["cures"] for step in variant.steps}
    digest = hashlib.sha256(built.lora.read_bytes()).hexdigest()
    said = (
        f"the LoRA 'lightning.safetensors' (sha256 {digest}, scale 0.5) is merged into "
        f"{len(built.weights)} weights"
    )
    assert said in cures["transformer"]
    assert not [
        one for part, all_of in cures.items() for one in all_of if "LoRA" in one and part != "transformer"
    ]
    assert variant.proven
    assert {verdict.status for verdict in built.result.verdicts} == {Status.PASS}


def test_its_pictures_are_those_of_diffusers_with_the_lora(built: Built) -> None:
    graphs = BundleGraphs(open_bundle(built.result.path))
    settings = dict(graphs.settings)
    graphs.settings = settings | {"picture": settings["picture"] | {"vae_area": CASE.vae_area}}
    found = test_edit.edited(CASE, task_of(graphs, TaskOptions()))  # type: ignore[arg-type]
    with beside(built.weights, SCALE):
        test_edit.assert_equal(found, picture_of_diffusers())
    for scale in (0.0, 1.0):  # without it, and with the scale that is not asked for
        with beside(built.weights, scale):
            assert qwen_edit.psnr(found.pixels, picture_of_diffusers()) < test_edit.LEAST_DB - 40


@pytest.mark.parametrize("step", [estimate_build, lambda plan: build(plan, silent)], ids=["plan", "build"])
def test_a_wrong_file_is_told_before_anything_is_loaded(
    step: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anyport.recipe.qwen_edit._component", None)
    texts = {
        "none.safetensors": "there is no LoRA 'none.safetensors'",
        "text.safetensors:0.5": "the LoRA 'text.safetensors' is no safetensors file: ",
        "model.safetensors": "'model.safetensors' is no LoRA: none of its 1 tensors is called lora_down, ",
    }
    (tmp_path / "text.safetensors").write_text("a text", encoding="utf-8")
    save_file({"proj_out.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    for name, text in texts.items():
        with pytest.raises(SourceError) as caught:
            step(plan_with(folder, str(tmp_path / name), "wrong.port"))
        assert caught.value.what.startswith(text)
    assert not list(folder.parent.glob("*wrong.port*"))
