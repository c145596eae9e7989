"""Every opset and the user's own operators, the whole way to a sealed bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx
import pytest

from anyport.build import build
from anyport.bundle import open_bundle
from anyport.errors import AnyportError, ExportError, MismatchError, SourceError, UsageError
from anyport.runtime import open_session
from anyport.verify import Status, verify_bundle
from tests.build.building import QUICK, plan_for, silent

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.build import BuildResult

OPSETS = (13, 14, 17, 18, 20)
EXPORTERS = {13: "torchscript", 14: "torchscript", 17: "torchscript", 18: "dynamo", 20: "dynamo"}
OWN = {
    "outputs": {"y": "float32[batch, 4]", "span": "float32[batch]"},
    "model": {"source": "ownops.py:clipped", "name": "clipped"},
}


def check(result: BuildResult, opset: int) -> None:
    """Hold a bundle against what was asked for, and replay its proof."""
    assert {leg.name: leg.status for leg in result.verdicts[0].legs} == dict.fromkeys(
        ("values", "power", "weights"), Status.PASS
    )
    [step] = result.manifest.variants["fp32"].steps
    assert (step.settings["opset"], step.settings["exporter"]) == (opset, EXPORTERS[opset])
    with open_bundle(result.path) as bundle:
        bundle.check()
        entry = bundle.manifest.variants["fp32"].graphs["network"]
        file = onnx.load(str(bundle.graph_file("network").path), load_external_data=False)
        assert {o.domain: o.version for o in file.opset_import} == {"": opset}
        assert entry.opset == opset
        assert [v.status for v in verify_bundle(bundle, open_session)] == [Status.PASS]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", ["image_and_text", "tiny_resnet", "masked_encoder"])
def test_models_are_proven_at_every_opset(name: str, opset: int, tmp_path: Path) -> None:
    plan = plan_for(name, tmp_path / "m.port", build={"opset": opset})
    if (name, opset) == ("masked_encoder", 13):
        with pytest.raises(ExportError, match="which opset 14 can express"):
            build(plan, silent)
        return
    check(build(plan, silent), opset)


@pytest.mark.slow
@pytest.mark.parametrize("opset", OPSETS)
def test_a_resnet_18_of_its_real_size(opset: int, tmp_path: Path) -> None:
    how = replace(QUICK, max_cases=6)
    check(build(plan_for("resnet_18", tmp_path / "m.port", how, build={"opset": opset}), silent), opset)


@pytest.mark.parametrize("opset", OPSETS)
def test_operators_of_ones_own_are_proven_with_each_exporter(opset: int, tmp_path: Path) -> None:
    made = {"opset": opset, "custom_ops": "ownops.py:OPS"}
    result = build(plan_for("clipped", tmp_path / "m.port", build=made, **OWN), silent)
    check(result, opset)
    [step] = result.manifest.variants["fp32"].steps
    assert step.settings["custom_operators"] == ["anyport_tests::parts", "anyport_tests::soft_clip"]


@pytest.mark.parametrize(
    ("table", "kind", "text"),
    [
        ("ownops.py:OSP", SourceError, "'ownops.py' has no table 'OSP' (did you mean 'OPS'?)"),
        ("ownops.py", SourceError, "'ownops.py' names no table"),
        ("nowhere.py:OPS", SourceError, "there is no file 'nowhere.py'"),
        ("ownops.py:clipped", UsageError, "'ownops.py:clipped' is a function of no translations"),
    ],
)
def test_a_table_that_is_none_stops_the_build(
    table: str, kind: type[AnyportError], text: str, tmp_path: Path
) -> None:
    made = {"custom_ops": table}
    with pytest.raises(kind) as caught:
        build(plan_for("clipped", tmp_path / "m.port", build=made, **OWN), silent)
    assert caught.value.what == text
    assert list(tmp_path.iterdir()) == []


def test_a_translation_that_computes_something_else_is_caught(tmp_path: Path) -> None:
    made = {"custom_ops": "ownops.py:WRONG_OPS"}
    with pytest.raises(MismatchError, match="output 'y' is off by"):
        build(plan_for("clipped", tmp_path / "m.port", build=made, **OWN), silent)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_the_trace_made_constant_is_caught(tmp_path: Path) -> None:
    """The numbers are right for the example alone, and every size that the export never saw says so."""
    tables: dict[str, Any] = {
        "inputs": {"x": "float32[batch, n]"},
        "outputs": {"y": "float32[batch, n]"},
        "dims": {"batch": "1..8", "n": "2..16"},
    }
    check(build(plan_for("scaled", tmp_path / "new.port", build={"opset": 18}, **tables), silent), 18)
    with pytest.raises(MismatchError) as caught:
        build(plan_for("scaled", tmp_path / "old.port", build={"opset": 17}, **tables), silent)
    assert "output 'y' is off by" in caught.value.what
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".port"] == ["new.port"]
