from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
import pytest

from anyport.errors import ExportError
from anyport.graph.simplifiers import Simplifier
from anyport.graph.tooltrial import Candidate, Subject, TrialSettings
from tests.graph.smallgraphs import perceptron, planted, stored

if TYPE_CHECKING:
    from pathlib import Path

HOLLOW = TrialSettings(hollow_from_bytes=1)


def trial(
    name: str, folder: Path, settings: TrialSettings | None = None, *, beside: bool = True
) -> Candidate:
    path = stored(folder) if beside else perceptron(folder / "plain.onnx")
    work = folder / "work"
    work.mkdir()
    return Subject(path, work, path.name, settings or TrialSettings()).attempt(planted(name))


@pytest.mark.parametrize("settings", [TrialSettings(), HOLLOW], ids=["whole", "hollow"])
def test_what_a_tool_wrote_is_stored_in_the_layout_of_the_original(
    settings: TrialSettings, tmp_path: Path
) -> None:
    found = trial("honest", tmp_path, settings)
    assert found.path is not None
    assert sorted(p.name for p in found.path.parent.iterdir() if p.suffix != ".txt") == [
        "model.onnx",
        "weights.safetensors",
    ]
    model = onnx.load(found.path, load_external_data=False)
    assert {t.name for t in model.graph.initializer if t.external_data} == {
        "first.weight",
        "first.bias",
        "second.weight",
    }
    weights = (found.path.parent / "weights.safetensors").read_bytes()
    assert weights == (tmp_path / "weights.safetensors").read_bytes()
    assert found.operators == {"Add": 1, "MatMul": 2, "Tanh": 1}
    attempt = found.attempt
    assert (attempt.status, attempt.n_nodes_before, attempt.n_nodes_after) == ("equal", 5, 4)
    assert (attempt.n_names_before, attempt.n_names_after) == (5, 4)
    assert (attempt.n_weights_before, attempt.n_weights_after) == (3, 3)
    assert attempt.size_bytes == found.path.stat().st_size + len(weights)
    outside = "of weights stayed outside" in attempt.reason
    assert outside is (settings is HOLLOW)


def test_a_file_with_its_weights_inside_stays_one_file(tmp_path: Path) -> None:
    found = trial("honest", tmp_path, beside=False)
    assert found.path is not None
    assert [p.name for p in found.path.parent.glob("*.safetensors")] == []
    assert (found.attempt.n_names_before, found.attempt.n_names_after) == (None, None)


def test_a_hollow_graph_gives_no_large_weight_away(tmp_path: Path) -> None:
    found = trial("wrong", tmp_path, HOLLOW)
    assert found.path is None
    assert found.attempt.status == "failed"
    assert found.attempt.reason == "ended with exit code 1: StopIteration"  # there is no such weight


def test_a_tool_that_finds_nothing_is_not_compared(tmp_path: Path) -> None:
    path = stored(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    once = Subject(path, work, path.name, TrialSettings()).attempt(planted("honest"))
    assert once.path is not None
    (tmp_path / "again").mkdir()
    again = Subject(once.path, tmp_path / "again", path.name, TrialSettings()).attempt(planted("honest"))
    assert (again.path, again.attempt.status, again.attempt.n_nodes_after) == (None, "unchanged", 4)


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("frozen_axis", "refused", "axis 0 of input 'x' became the constant 3, it was 'batch'"),
        ("garbage", "failed", "what it wrote is no .onnx file"),
        ("nothing", "failed", "it ended well and wrote no file"),
        ("raising", "failed", "ended with exit code 1: ValueError: this operator is too hard for me"),
        ("renamed_output", "refused", "it lost the output 'y', it has 'z'"),
    ],
)
def test_what_comes_to_nothing_says_why(name: str, status: str, reason: str, tmp_path: Path) -> None:
    found = trial(name, tmp_path)
    assert (found.path, found.attempt.status, found.attempt.reason) == (None, status, reason)


def test_a_tool_that_is_not_installed_is_skipped(tmp_path: Path) -> None:
    path = stored(tmp_path)
    tool = Simplifier("gone", "anyport-none-such")
    found = Subject(path, tmp_path, path.name, TrialSettings()).attempt(tool)
    assert found.attempt.status == "skipped"
    assert found.attempt.reason == "not installed: pip install 'anyport[optimize]'"


def test_a_tool_that_writes_into_the_original_stops_everything(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"^'overwrites' wrote into model.onnx, which it was given to read$"
    ):
        trial("overwrites", tmp_path)


def test_the_memory_limit_grows_with_the_model(tmp_path: Path) -> None:
    subject = Subject(stored(tmp_path), tmp_path, "model.onnx", TrialSettings())
    size_bytes = subject.original.attempt.size_bytes or 0
    assert subject._limits().memory_bytes == 8 * size_bytes + (1 << 30)
    fixed = Subject(tmp_path / "model.onnx", tmp_path, "m.onnx", TrialSettings(memory_limit_bytes=77))
    assert fixed._limits().memory_bytes == 77
    assert replace(TrialSettings(), timeout_s=5.0).timeout_s == 5.0
