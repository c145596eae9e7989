from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import onnx
import pytest

from anyport.build import build, simplifying
from anyport.build.simplifying import simplify_settings
from anyport.bundle import open_bundle
from anyport.errors import UsageError
from anyport.graph.simplifiers import SIMPLIFIERS
from anyport.runtime import open_session
from anyport.verify import Status, verify_bundle
from tests.build.building import plan_for, silent
from tests.graph.smallgraphs import planted

if TYPE_CHECKING:
    from pathlib import Path

OLD = {"opset": 14, "simplify": "auto"}  # what the TorchScript exporter writes can be simplified


@pytest.mark.parametrize("name", ["image_and_text", "masked_encoder", "tiny_resnet"])
def test_a_simplified_graph_is_proven_again_and_opened_as_it_was_proven(name: str, tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []
    plan = plan_for(name, tmp_path / "m.port", build=OLD)
    result = build(plan, lambda step, text: lines.append((step, text)))
    assert [step for step, _ in lines] == ["source", "export", "verify", "simplify", "bundle"]
    variant = result.manifest.variants["fp32"]
    export, simplify = variant.steps
    entry = variant.graphs["network"]
    assert (export.verb, simplify.verb) == ("export", "simplify")
    assert simplify.settings["optimization"] == entry.optimization
    assert simplify.settings["tool"] in {"none", *SIMPLIFIERS}
    assert simplify.result.endswith(f"-> {entry.n_nodes} nodes, proven equal")
    assert variant.proven
    with open_bundle(result.path) as bundle:
        model = onnx.load(str(bundle.graph_file("network").path), load_external_data=False)
        assert len(model.graph.node) == entry.n_nodes
        assert [v.status for v in verify_bundle(bundle, open_session)] == [Status.PASS]


@pytest.mark.parametrize("tool", ["abort", "garbage", "raising", "wrong", "renamed_output"])
def test_a_bad_simplifier_leaves_the_build_whole(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simplifying, "SIMPLIFIERS", {tool: planted(tool)})
    plan = plan_for("image_and_text", tmp_path / "m.port", build={"simplify": "auto"})
    variant = build(plan, silent).manifest.variants["fp32"]
    assert variant.proven
    assert variant.steps[1].settings["tool"] == "none"
    with open_bundle(tmp_path / "m.port") as bundle:
        bundle.check()
        assert [v.status for v in verify_bundle(bundle, open_session)] == [Status.PASS]


def test_what_was_measured_lies_in_the_report_and_not_in_the_bundle(tmp_path: Path) -> None:
    result = build(plan_for("image_and_text", tmp_path / "m.port", build={"simplify": "onnxslim"}), silent)
    report = json.loads((tmp_path / "m.report.json").read_bytes())
    [found] = report["simplifications"].values()
    assert [attempt["tool"] for attempt in found["attempts"]] == ["none", "onnxslim"]
    assert "ratio" not in json.dumps(msgspec.to_builtins(result.manifest.variants["fp32"].steps))


def test_tools_are_chosen_by_name() -> None:
    assert simplify_settings("none") is None
    every, one = simplify_settings("auto"), simplify_settings("onnxslim")
    assert every is not None
    assert one is not None
    assert [tool.name for tool in every.tools] == list(SIMPLIFIERS)
    assert [tool.name for tool in one.tools] == ["onnxslim"]
    with pytest.raises(UsageError, match=r"there is no simplifier 'onnxslimm' \(did you mean 'onnxslim'\?\)"):
        simplify_settings("onnxslimm")


def test_a_wrong_name_stops_the_build_before_anything_is_loaded(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(UsageError, match="there is no simplifier 'fast'"):
        build(
            plan_for("dense", tmp_path / "m.port", build={"simplify": "fast"}), lambda s, _: lines.append(s)
        )
    assert lines == []
