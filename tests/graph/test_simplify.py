from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from anyport.errors import SessionError, UsageError
from anyport.graph.equality import Equality
from anyport.graph.fastest import RaceSettings
from anyport.graph.simplifiers import SIMPLIFIERS
from anyport.graph.simplify import SimplifySettings, simplify_file, simplify_graph
from anyport.graph.storing import StoreOptions
from anyport.graph.tooltrial import TrialSettings
from anyport.runtime import open_session
from anyport.source import TorchReference
from anyport.verify import Answer, PartSpec, SweepSettings, plan_cases
from tests.build import zoo
from tests.build.building import TABLES
from tests.graph.exports import export, shared
from tests.graph.smallgraphs import equality, perceptron, settings, stored
from tests.source.parts import part_of

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.cases import Case
    from anyport.graph.simplification import Attempt, Simplification
    from anyport.recipe import Part

QUICK = RaceSettings(budget_s=1.0)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces RLIMIT_DATA")


def attempt(found: Simplification, tool: str) -> Attempt:
    return next(attempt for attempt in found.attempts if attempt.tool == tool)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


# ── planted simplifiers ─────────────────────────────────────────────────────────────────────────────────
def test_what_is_proven_and_not_slower_is_kept_in_place(tmp_path: Path) -> None:
    path = stored(tmp_path)
    before = digests(tmp_path)
    lines: list[str] = []
    found = simplify_graph(path, equality(), settings("honest"), lambda name, text: lines.append(name + text))
    assert (found.kept, found.optimization, found.proven) == ("honest", "all", True)
    assert found.operators == {"Add": 1, "MatMul": 2, "Tanh": 1}
    assert lines == ["honest5 -> 4 nodes"]
    kept = attempt(found, "honest")
    assert (kept.status, kept.reason, kept.n_nodes_after) == ("kept", "", 4)
    assert kept.ratio is not None
    assert kept.largest_difference is not None
    assert kept.largest_difference < 1e-6
    after = digests(tmp_path)
    assert sorted(after) == sorted(before) == ["model.onnx", "modules.json", "weights.safetensors"]
    assert [name for name in after if after[name] != before[name]] == ["model.onnx"]
    assert len(onnx.load(path).graph.node) == 4


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("abort", "failed", "crashed: SIGABRT"),
        ("garbage", "failed", "what it wrote is no .onnx file"),
        ("nothing", "failed", "it ended well and wrote no file"),
        ("renamed_output", "refused", "it lost the output 'y', it has 'z'"),
        ("wrong", "different", "level none: output 'y' is off by "),
    ],
)
def test_a_bad_simplifier_changes_nothing_and_says_why(
    name: str, status: str, reason: str, tmp_path: Path
) -> None:
    path = stored(tmp_path)
    before = digests(tmp_path)
    found = simplify_graph(path, equality(), settings(name))
    assert (found.kept, found.proven) == ("none", True)
    bad = attempt(found, name)
    assert bad.status == status
    assert bad.reason.startswith(reason)
    assert digests(tmp_path) == before


def test_one_that_hangs_costs_its_time_and_no_more(tmp_path: Path) -> None:
    path = stored(tmp_path)
    found = simplify_graph(path, equality(), settings("hang", "honest", timeout_s=5.0))
    assert attempt(found, "hang").reason == "stopped: not ready after 5 s"
    assert found.kept == "honest"


@linux_only
def test_one_that_eats_memory_is_stopped_and_the_others_go_on(tmp_path: Path) -> None:
    path = stored(tmp_path)
    found = simplify_graph(path, equality(), settings("hungry", "honest", memory_limit_bytes=600_000_000))
    assert attempt(found, "hungry").reason == "ran out of memory: the limit is 600.0 MB"
    assert found.kept == "honest"


def test_a_slower_graph_is_not_kept(tmp_path: Path) -> None:
    found = simplify_graph(stored(tmp_path), equality(), settings("slower"))
    assert found.kept == "none"
    slower = attempt(found, "slower")
    assert (slower.status, slower.reason) == ("equal", "none is faster")
    assert (slower.ratio or 1.0) < 0.9


def test_two_that_do_the_same_tie_and_the_table_says_so(tmp_path: Path) -> None:
    found = simplify_graph(stored(tmp_path), equality(), settings("honest", "forgetful"))
    statuses = {a.tool: a.status for a in found.attempts}
    assert sorted(statuses.values()) == ["equal", "equal", "kept"]
    assert statuses["none"] == "equal"
    assert len(str(found).splitlines()) == 4


def test_a_reference_that_nobody_agrees_with_leaves_the_original_unproven(tmp_path: Path) -> None:
    class Other:
        def answer(self, case: Case) -> Answer:
            from anyport.verify import Floor

            output = np.full((case.sizes["batch"], 16), 7, np.float32)
            return Answer({"y": output}, {"y": Floor(1e-6, 1e-6, "made up")})

    path = stored(tmp_path)
    before = digests(tmp_path)
    found = simplify_graph(path, replace(equality(), reference=Other()), settings("honest"))
    assert (found.kept, found.optimization, found.proven) == ("none", "all", False)
    assert attempt(found, "honest").status == "different"
    assert attempt(found, "none").reason.startswith("level none: output 'y' is off by ")
    assert "NOTHING PROVEN" in found.summary()
    assert digests(tmp_path) == before


def test_every_level_is_tried_and_one_is_chosen(tmp_path: Path) -> None:
    chosen = replace(settings("honest"), levels=("extended", "none"))
    found = simplify_graph(stored(tmp_path), equality(), chosen)
    assert found.optimization in {"extended", "none"}
    assert {a.optimization for a in found.attempts} <= {"extended", "none"}


def test_nothing_of_the_work_is_left_after_an_error(tmp_path: Path) -> None:
    path = stored(tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.node[3].op_type = "NoSuchOperator"
    path.write_bytes(model.SerializeToString())
    before = digests(tmp_path)
    with pytest.raises(SessionError, match="^opening the graph failed"):
        simplify_graph(path, equality(), settings("nothing"))
    assert digests(tmp_path) == before


# ── plain files ─────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["honest", "abort"])
def test_a_plain_file_becomes_another_one(name: str, tmp_path: Path) -> None:
    path, output = perceptron(tmp_path / "in.onnx"), tmp_path / "slim.onnx"
    before = path.read_bytes()
    found = simplify_file((path, output), equality(), settings(name))
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "slim.onnx"]
    assert len(onnx.load(output).graph.node) == attempt(found, found.kept).n_nodes_after
    with pytest.raises(UsageError, match=r"^'slim.onnx' exists already"):
        simplify_file((path, output), equality(), settings(name))
    simplify_file((path, output), equality(), settings(name), force=True)


@pytest.mark.parametrize("name", ["honest", "abort"])
def test_weights_beside_a_plain_file_stay_beside_it(name: str, tmp_path: Path) -> None:
    output = tmp_path / "slim.onnx"
    simplify_file((stored(tmp_path), output), equality(), settings(name))
    assert (tmp_path / "slim.safetensors").is_file()
    session = open_session(output)
    case = equality().plan.cases[0]
    assert session.run(case.arrays(session.inputs))["y"].shape == (case.sizes["batch"], 16)


@pytest.mark.parametrize("name", ["honest", "abort"])
def test_files_that_the_input_needs_are_not_replaced(name: str, tmp_path: Path) -> None:
    """The input's weights lie where those of the output would go."""
    path = stored(tmp_path)
    before = digests(tmp_path)
    for output in ("weights.onnx", "model.onnx"):
        lost = "weights.safetensors" if output == "weights.onnx" else "model.onnx"
        with pytest.raises(
            UsageError, match=f"^'{lost}' would be replaced, and 'model.onnx' needs it"
        ) as told:
            simplify_file((path, tmp_path / output), equality(), settings(name), force=True)
        assert "do:    give the output another name, or write it into another folder" in str(told.value)
        assert digests(tmp_path) == before


def test_stale_weights_of_the_output_that_is_replaced_go_with_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    output, weights = tmp_path / "slim.onnx", tmp_path / "slim.safetensors"
    beside, inside = stored(tmp_path / "in"), perceptron(tmp_path / "in" / "plain.onnx")
    simplify_file((beside, output), equality(), settings("honest"))
    assert weights.is_file()
    simplify_file((inside, output), equality(), settings("honest"), force=True)
    assert not weights.exists()
    weights.write_bytes(b"of somebody else")
    simplify_file((inside, output), equality(), settings("honest"), force=True)
    assert weights.read_bytes() == b"of somebody else"


# ── real simplifiers on real exports ────────────────────────────────────────────────────────────────────
def zoo_part(name: str) -> Part:
    table = TABLES[name]
    return part_of(getattr(zoo, name)(), table["inputs"], table["outputs"], table["dims"])


@pytest.mark.parametrize("name", ["resnet", "masked_encoder", "image_and_text"])
@pytest.mark.parametrize("hollow", [False, True], ids=["whole", "hollow"])
def test_real_tools_on_real_exports(name: str, hollow: bool, tmp_path: Path) -> None:
    exported = shared(name) if name == "resnet" else export(zoo_part(name))
    graph = exported.store(tmp_path, StoreOptions(metadata={"license": "MIT"}))
    (tmp_path / "modules.json").write_bytes(exported.converted.modules.encode())
    before = onnx.load(graph.path, load_external_data=False)
    signature = exported.part.signature
    spec = PartSpec(name, "fp32", signature.inputs, signature.outputs, signature.dims)
    plan = plan_cases(signature.inputs, signature.dims, SweepSettings(max_cases=12, max_case_bytes=1 << 20))
    tried = tuple(tool for tool in SIMPLIFIERS.values() if tool.version is not None)
    found = simplify_graph(
        graph.path,
        Equality(spec, plan, reference=TorchReference(exported.part)),
        SimplifySettings(
            tried, ("all", "none"), TrialSettings(hollow_from_bytes=1 if hollow else 10**9), QUICK
        ),
    )
    assert found.proven, str(found)
    assert {a.status for a in found.attempts} <= {"kept", "equal", "unchanged"}, str(found)
    kept = found.kept_attempt
    assert (kept.n_nodes_after or 0) <= graph.n_nodes
    best = max(a.ratio or 0.0 for a in found.attempts)
    assert (kept.ratio or 0.0) * 1.03 >= best, str(found)
    check_ends(before, graph.path)
    assert json.loads(json.dumps(found.to_json()))["kept"] == found.kept


def check_ends(before: onnx.ModelProto, path: Path) -> None:
    """What a user of the graph sees has not changed."""
    after = onnx.load(path, load_external_data=False)
    for name in ("input", "output"):
        assert list(getattr(after.graph, name)) == list(getattr(before.graph, name))
    for name in ("metadata_props", "opset_import"):
        assert list(getattr(after, name)) == list(getattr(before, name))
    assert (after.producer_name, after.ir_version) == (before.producer_name, before.ir_version)
    places = {e.value for t in after.graph.initializer for e in t.external_data if e.key == "location"}
    assert places <= {"weights.safetensors"}
