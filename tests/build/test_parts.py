from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import onnx
import pytest

from anyport.build.parts import export_and_prove, graph_entry, is_allowed
from anyport.build.steps import load_model
from anyport.errors import MismatchError
from anyport.verify import Status
from tests.build.building import QUICK, plan_for, silent

if TYPE_CHECKING:
    from pathlib import Path


def test_a_part_is_exported_proven_and_described(tmp_path: Path) -> None:
    plan = plan_for("scores_and_choice", tmp_path / "m.port")
    model = load_model(plan, silent)
    folder = tmp_path / "parts" / "network" / "fp32"
    folder.mkdir(parents=True)
    proven = export_and_prove(model, model.parts[0], plan, silent, folder)
    assert proven.verdict.status is Status.PASS
    assert [step.verb for step in proven.steps] == ["export"]
    assert proven.optimization == "all"
    entry = proven.entry
    assert entry == graph_entry(model.parts[0], "fp32", proven.graph, "all")
    assert (entry.file, entry.weights, entry.modules) == (
        "parts/network/fp32/model.onnx",
        "parts/network/fp32/weights.safetensors",
        "parts/network/fp32/modules.json",
    )
    stored = onnx.load(folder / "model.onnx", load_external_data=False)
    assert entry.n_nodes == len(stored.graph.node) == sum(entry.operators.values())
    said = {one.key: one.value for one in stored.metadata_props}
    assert said["name"] == "scores-and-choice"
    assert msgspec.json.decode(said["anyport.signature"])["dims"] == {"batch": "1..32"}


def _folder(place: Path, name: str) -> Path:
    (place / name).mkdir()
    return place / name


def test_a_verdict_that_is_no_pass_goes_on_only_by_its_name(tmp_path: Path) -> None:
    tables = {"inputs": {"x": "float32[batch, 4]"}, "outputs": {"y": "float32[batch, 4]"}}
    plan = plan_for("deaf", tmp_path / "m.port", **tables, dims={"batch": "1..8"})
    model = load_model(plan, silent)
    with pytest.raises(MismatchError, match="inconclusive"):
        export_and_prove(model, model.parts[0], plan, silent, _folder(tmp_path, "a"))
    allowing = replace(plan, settings=replace(QUICK, allow=frozenset({"inconclusive"})))
    proven = export_and_prove(model, model.parts[0], allowing, silent, _folder(tmp_path, "b"))
    assert is_allowed(proven.verdict, allowing.settings)
    assert not is_allowed(proven.verdict, plan.settings)
