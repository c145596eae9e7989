from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from anyport.build import fingerprint as module
from anyport.build.description import CasesTable
from anyport.build.fingerprint import fingerprint
from anyport.verify import Gates
from tests.build.streaming import HOW, model_in, plan_in, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyport.build import BuildSettings
    from anyport.recipe import Model

SECTIONS = ["the model", "the options", "the packages", "the processor", "the weights"]


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


def key_of(folder: Path, how: BuildSettings = HOW, model: Model | None = None, **made: Any) -> dict[str, str]:
    return fingerprint(model or model_in(folder), plan_in(folder, how, **made))


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    assert sorted(before) == sorted(after) == SECTIONS
    return [name for name in SECTIONS if before[name] != after[name]]


def test_what_decides_nothing_of_a_part_is_not_in_it(folder: Path) -> None:
    before = key_of(folder)
    assert key_of(folder) == before
    other = replace(
        HOW,
        force=True,
        command=("anyport", "other"),
        show_command="other",
        allow=HOW.allow | {"unproven-task"},
    )
    assert key_of(folder, other) == before
    assert key_of(folder, attention="fused") == before
    now = replace(HOW, source_date_epoch=None)
    assert key_of(folder, now) == key_of(folder, now)


@pytest.mark.parametrize(
    "how",
    [
        replace(HOW, max_cases=4),
        replace(HOW, max_case_bytes=1 << 20),
        replace(HOW, seed=1),
        replace(HOW, gates=Gates(atol=1.0)),
        replace(HOW, allow=frozenset()),
    ],
    ids=["max_cases", "max_case_bytes", "seed", "gates", "allow"],
)
def test_every_setting_of_the_comparison_is_in_it(how: BuildSettings, folder: Path) -> None:
    assert "the options" in changed(key_of(folder), key_of(folder, how))


@pytest.mark.parametrize("made", [{"weights": "reference"}, {"opset": 21}, {"storage": "float32"}])
def test_every_option_of_the_export_is_in_it(made: dict[str, Any], folder: Path) -> None:
    assert changed(key_of(folder), key_of(folder, **made)) == ["the options"]


def test_a_library_of_operators_is_in_it(folder: Path, tmp_path: Path) -> None:
    library = tmp_path / "own.so"
    how = replace(HOW, libraries=(library,))
    library.write_bytes(b"one")
    before = key_of(folder, how)
    library.write_bytes(b"two")
    assert changed(before, key_of(folder, how)) == ["the options"]


def rewritten(folder: Path) -> None:
    state = load_file(folder / "second" / "model.safetensors")
    state["head.weight"] += 1
    save_file(state, folder / "second" / "model.safetensors")


def configured(folder: Path) -> None:
    (folder / "first" / "config.json").write_text(json.dumps({"eps": 1e-3}), encoding="utf-8")


def pipeline_configured(folder: Path) -> None:
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}", encoding="utf-8")
    (folder / "model_index.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize("change", [rewritten, configured, pipeline_configured])
def test_what_lies_in_the_checkpoint_is_in_it(change: Callable[[Path], None], folder: Path) -> None:
    before = key_of(folder)
    change(folder)
    assert changed(before, key_of(folder)) == ["the weights"]


def test_weights_that_are_loaded_are_in_it(folder: Path) -> None:
    model = model_in(folder)
    before = key_of(folder, model=model)
    with torch.no_grad():
        model.parts[-1].module.weight += 1
    assert changed(before, key_of(folder, model=model)) == ["the weights"]


def test_what_the_recipe_says_is_in_it(folder: Path) -> None:
    model, before = model_in(folder), key_of(folder)
    first, *others = model.parts
    for part in (
        replace(first, cures=("another",)),
        replace(first, arguments={"scale": 2}),
        replace(first, given=None),
        replace(first, max_case_bytes=1000),
        replace(first, blocks=None),
        replace(first, outputs_in_order=True),
    ):
        other = replace(model, parts=(part, *others))
        assert changed(before, key_of(folder, model=other)) == ["the model"]
    for other in (replace(model, settings={"steps": 4}), replace(model, assets={"a": b""})):
        assert changed(before, key_of(folder, model=other)) == ["the model"]
    at_another_time = replace(HOW, source_date_epoch=1)
    assert changed(before, key_of(folder, at_another_time)) == ["the model"]


def test_packages_and_processor_are_in_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(folder)
    monkeypatch.setattr(module, "cpu_flags", lambda: ["none"])
    assert changed(before, key_of(folder)) == ["the processor"]
    monkeypatch.setattr(module, "_own_sources", lambda: "edited")
    assert changed(before, key_of(folder)) == ["the packages", "the processor"]
    packages = module._packages()
    assert {"anyport", "onnx", "onnxruntime", "torch", "diffusers", "transformers"} <= packages.keys()


def test_the_user_s_own_cases_are_in_it(folder: Path) -> None:
    plan = plan_in(folder)
    own = msgspec.structs.replace(plan.description, cases=CasesTable("cases.py:make"))
    plan, model = replace(plan, description=own), model_in(folder)
    before = fingerprint(model, plan)
    feeds = [{name: array + 1 for name, array in one.items()} for one in model.parts[0].given()]
    part = replace(model.parts[0], given=lambda: feeds)
    assert changed(before, fingerprint(replace(model, parts=(part, *model.parts[1:])), plan)) == ["the model"]
