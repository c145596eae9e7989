from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from anyport.build import BuildPlan, build, describe
from anyport.build.estimate import estimate_build
from anyport.build.steps import load_model, report_path
from anyport.bundle import open_bundle
from anyport.errors import (
    AnyportError,
    AxisError,
    MismatchError,
    RefusedModelError,
    SourceError,
    UsageError,
)
from anyport.runtime import open_session
from anyport.verify import Gates, Status, verify_bundle
from tests.build.building import QUICK, SMALL, TABLES, plan_for, silent
from tests.recipe.blip_folders import write_folder


@pytest.mark.parametrize("name", TABLES)
def test_a_model_becomes_a_proven_bundle_with_every_named_axis_dynamic(name: str, tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []
    result = build(plan_for(name, tmp_path / "m.port"), lambda step, text: lines.append((step, text)))
    assert [step for step, _ in lines] == ["source", "export", "verify", "bundle"]
    assert result.verdicts[0].status is Status.PASS
    assert {leg.name: leg.status for leg in result.verdicts[0].legs} == dict.fromkeys(
        ("values", "power", "weights"), Status.PASS
    )
    with open_bundle(result.path) as bundle:
        bundle.check()
        assert bundle.manifest.variants["fp32"].proven
        declared = TABLES[name]
        part = bundle.manifest.parts["network"]
        assert (dict(part.inputs), dict(part.outputs), dict(part.dims)) == tuple(declared.values())
        model = onnx.load(str(bundle.graph_file("network").path), load_external_data=False)
        assert _axes(model.graph.input) == _declared_axes(declared["inputs"])
        assert _axes(model.graph.output) == _declared_axes(declared["outputs"])
        assert [v.status for v in verify_bundle(bundle, open_session)] == [Status.PASS]


def _axes(values: Any) -> dict[str, list[str]]:
    return {
        value.name: [axis.dim_param or str(axis.dim_value) for axis in value.type.tensor_type.shape.dim]
        for value in values
    }


def _declared_axes(table: dict[str, str]) -> dict[str, list[str]]:
    return {
        name: [axis.strip() for axis in text.partition("[")[2].partition("]")[0].split(",")]
        for name, text in table.items()
    }


def test_the_exporters_mistake_with_padded_rows_is_mended_and_named(tmp_path: Path) -> None:
    result = build(plan_for("masked_encoder", tmp_path / "m.port"), silent)
    [step] = result.manifest.variants["fp32"].steps
    assert step.settings["cures"] == [
        "attention masks use -inf, so that a fully padded row attends to nothing as in PyTorch"
    ]
    names = [case.name for case in result.verdicts[0].plan.cases]
    assert "mask with a fully padded row" in names


REFUSED = {
    "training": (RefusedModelError, "the model is in training mode: 4 of its modules, such as '1' (Dropout)"),
    "noise": (RefusedModelError, "part 'network' draws random numbers (randn)"),
    "not_a_number": (MismatchError, "the PyTorch model itself"),
    "deaf": (MismatchError, "the verdict is inconclusive: output 'y'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_would_be_wrong_is_refused_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    kind, text = REFUSED[name]
    with pytest.raises(kind) as caught:
        build(plan_for(name, tmp_path / "m.port"), silent)
    assert caught.value.what.startswith(text)
    assert list(tmp_path.iterdir()) == []


def test_a_specialised_axis_is_refused_with_its_line(tmp_path: Path) -> None:
    tables = {
        "inputs": {"x": "float32[batch, n]"},
        "outputs": {"y": "float32[batch, n]"},
        "dims": {"batch": "1..8", "n": "2..9"},
    }
    with pytest.raises(AxisError) as caught:
        build(plan_for("fixed", tmp_path / "m.port", **tables), silent)
    assert caught.value.what == (
        "axis 'n' of part 'network' was asked for as dynamic, and the model makes it constant"
    )
    assert "zoo.py:" in (caught.value.where or "")
    assert "torch.as_tensor(x.shape[1])" in (caught.value.where or "")


def test_an_inconclusive_verdict_may_be_allowed_by_name_and_the_manifest_says_so(tmp_path: Path) -> None:
    settings = replace(QUICK, allow=frozenset({"inconclusive"}))
    result = build(plan_for("deaf", tmp_path / "m.port", settings), silent)
    variant = result.manifest.variants["fp32"]
    assert not variant.proven
    assert "INCONCLUSIVE" in variant.note


def test_an_existing_output_is_refused_without_force(tmp_path: Path) -> None:
    output = tmp_path / "m.port"
    build(plan_for("scores_and_choice", output), silent)
    before = (output / "SEAL").read_text()
    with pytest.raises(UsageError, match=r"'m.port' exists already"):
        build(plan_for("scores_and_choice", output), silent)
    build(plan_for("scores_and_choice", output, replace(QUICK, force=True)), silent)
    assert (output / "SEAL").read_text() == before


def test_what_the_machine_measured_lies_beside_the_bundle(tmp_path: Path) -> None:
    result = build(plan_for("scores_and_choice", tmp_path / "m.port"), silent)
    report = json.loads((tmp_path / "m.report.json").read_text())
    assert report["manifest"] == result.digest
    assert report["verdicts"][0]["status"] == "PASS"
    assert report["peak_memory_bytes"] > 0


_BUILD = """
import sys
from pathlib import Path
from anyport.build import build
from anyport.build.steps import report_path
from tests.build.building import plan_for, silent
print(build(plan_for("masked_encoder", Path(sys.argv[1])), silent).digest)
"""


def test_the_same_source_gives_the_same_bytes_in_any_process_and_place(tmp_path: Path) -> None:
    digests = []
    for number in range(2):
        place = tmp_path / f"place {number}"
        place.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _BUILD, str(place / "m.port")],
            cwd=place,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONHASHSEED": str(number)},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.append(done.stdout.strip())
    assert digests[0] == digests[1]


def test_no_path_of_the_machine_is_in_a_bundle(tmp_path: Path) -> None:
    result = build(plan_for("image_and_text", tmp_path / "m.port"), silent)
    words = [str(tmp_path), str(Path(__file__).parent), sys.prefix, os.path.expanduser("~") + os.sep]  # noqa: PTH111
    for path in result.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [word for word in words if word.encode() in content], path


def test_the_graph_says_where_it_comes_from(tmp_path: Path) -> None:
    model = {"source": "zoo.py:noise", "name": "facts", "version": "2.1.0", "author": "A", "license": "MIT"}
    plan = plan_for(
        "scores_and_choice", tmp_path / "m.port", model=model | {"source": "zoo.py:scores_and_choice"}
    )
    result = build(plan, silent)
    with open_bundle(result.path) as bundle:
        graph = onnx.load(str(bundle.graph_file("network").path), load_external_data=False)
    written = {entry.key: entry.value for entry in graph.metadata_props}
    assert written.pop("producer").startswith("anyport ")
    assert written.pop("anyport.signature").startswith('{"inputs":{"features":"float32[batch, 12]"}')
    assert written == {
        "name": "facts",
        "version": "2.1.0",
        "author": "A",
        "license": "MIT",
        "source": "zoo.py:scores_and_choice",
        "created": "2023-11-14T22:13:20Z",
    }


def test_the_users_own_cases_are_tried_first_and_kept(tmp_path: Path) -> None:
    plan = plan_for("scores_and_choice", tmp_path / "m.port", cases={"function": "given_cases.py:samples"})
    result = build(plan, silent)
    assert [case.kind for case in result.verdicts[0].plan.cases][:2] == ["typical", "random"]
    with open_bundle(result.path) as bundle:
        session = open_session(bundle.graph_file("network"))
        answer = session.run({"features": np.zeros((3, 12), np.float32)})
    assert answer["scores"].shape == (3, 7)


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ({"inputs": {"x": "float32[batch, 4]"}, "dims": {}}, "axis 'batch' of input 'x' has no dim"),
        ({"dims": {"batch": "1..8", "n": "1..2"}}, "dim 'n' is not an axis of any input"),
        ({"outputs": {"x": "float32[batch, 4]"}}, "'x' is both an input and an output"),
        ({"settings": {"labels": []}}, "settings are given, and no task that they are for"),
        ({"colour": "red"}, "test has an unknown key 'colour'"),
    ],
)
def test_a_wrong_description_is_refused(tables: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(AnyportError) as caught:
        build(plan_for("noise", tmp_path / "m.port", **(SMALL | tables)), silent)
    assert caught.value.what.startswith(text)


def test_a_bundle_that_was_allowed_to_fail_never_verifies_as_proven(tmp_path: Path) -> None:
    settings = replace(QUICK, gates=Gates(atol=0), allow=frozenset({"failed"}))
    result = build(plan_for("scores_and_choice", tmp_path / "m.port", settings), silent)
    assert result.verdicts[0].status is Status.FAIL
    with open_bundle(result.path) as bundle:
        [verdict] = verify_bundle(bundle, open_session)
    assert verdict.status is Status.INCONCLUSIVE
    with pytest.raises(MismatchError, match="the bundle was written without being proven"):
        verdict.raise_if_bad()


def test_nothing_is_written_into_a_sealed_bundle(tmp_path: Path) -> None:
    build(plan_for("scores_and_choice", tmp_path / "m.port"), silent)
    for output in (tmp_path / "m.port" / "inner.port", tmp_path / "m.port" / "parts" / "inner.port"):
        with pytest.raises(UsageError, match=r"'inner.port' would lie inside the sealed bundle 'm.port'"):
            build(plan_for("scores_and_choice", output), silent)
    with open_bundle(tmp_path / "m.port") as bundle:
        bundle.check()


def test_a_file_that_is_no_report_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m.report.json").write_text("mine")
    with pytest.raises(UsageError, match=r"'m.report.json' exists and is no report of anyport"):
        build(plan_for("scores_and_choice", tmp_path / "m.port"), silent)
    assert (tmp_path / "m.report.json").read_text() == "mine"
    assert report_path(Path("a/v1.0")) == Path("a/v1.0.report.json")
    assert report_path(Path("a/v1.0.port")) == Path("a/v1.0.report.json")


WRONG_CASES = {
    "fails": "the function of [cases] fails: RuntimeError: no pictures here",
    "fails_late": "the function of [cases] fails: RuntimeError: no more pictures",
    "a_number": "the function of [cases] fails: TypeError: 'int' object is not iterable",
    "lists": "case 1 of [cases] is a list, not a dict of input name -> array",
}


@pytest.mark.parametrize("function", WRONG_CASES)
def test_wrong_cases_are_told_before_the_export(function: str, tmp_path: Path) -> None:
    steps: list[str] = []
    plan = plan_for(
        "scores_and_choice", tmp_path / "m.port", cases={"function": f"given_cases.py:{function}"}
    )
    with pytest.raises(SourceError) as caught:
        build(plan, lambda step, _: steps.append(step))
    assert caught.value.what == WRONG_CASES[function]
    assert steps == []


def test_shared_weights_count_once_and_what_is_assumed_is_told(tmp_path: Path) -> None:
    folder = write_folder("BlipForImageTextRetrieval", tmp_path / "tiny", n_layers=1)
    plan = BuildPlan(describe({"model": {"source": "tiny"}}, "test"), tmp_path, tmp_path / "m.port", QUICK)
    told: list[tuple[str, str]] = []
    load_model(plan, lambda *words: told.append(words))
    n_parameters = estimate_build(plan).n_parameters
    assert [step for step, _ in told] == ["source"]
    assert told[0][1].startswith(f"tiny, {n_parameters / 1e6:.2f} M parameters ")
    (folder / "preprocessor_config.json").unlink()
    told.clear()
    load_model(plan, lambda *words: told.append(words))
    assert [step for step, _ in told] == ["source", "warning"]
    assert told[1][1].startswith("no preprocessor_config.json: pictures are prepared as Salesforce/blip-* do")
