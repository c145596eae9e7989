"""The whole task's proof as a build makes it: with answers that are right, wrong, or none."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.build import build, steps
from anyport.build import task_proving as tested
from anyport.build.steps import report_path
from anyport.bundle import open_bundle
from anyport.bundle.task_proof import has_task_proof
from anyport.errors import MismatchError, SourceError
from anyport.runtime import open_session
from anyport.source import find_model
from anyport.task import TaskOptions
from anyport.task.rehearsals import REHEARSALS, TaskAnswer, TaskRequest
from anyport.verify import Status, verify_bundle
from anyport.verify.whole_task import WHOLE_TASK
from tests.build.building import QUICK, plan_for, silent

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.build import BuildResult
    from anyport.recipe import Model

REQUESTS = [
    TaskRequest("one", {"shift": 0.0}, []),
    TaskRequest("two", {"shift": 0.1}, []),
]


def picture_of(y: np.ndarray) -> np.ndarray:
    return np.repeat(1 / (1 + np.exp(-y.astype(np.float32))), 3).reshape(1, -1, 3)


def rehearse(graphs: Any, request: TaskRequest) -> TaskAnswer:
    """Do what the task of this test does."""
    x = np.float32([[0.5, -0.5, 1.0, 2.0]]) + np.float32(request.words["shift"])
    return TaskAnswer(picture_of(graphs.open("network", TaskOptions()).run({"x": x})["y"]))


def built(
    output: Path, patch: pytest.MonkeyPatch, error: float = 0.0, how: Any = QUICK, **tables: Any
) -> BuildResult:
    """Build a network whose task's original program is PyTorch, off by ``error``."""
    import torch

    def with_cases(request: Any) -> Model:
        model = find_model(request)
        [part] = model.parts

        def cases(settings: Any) -> list[tuple[TaskRequest, TaskAnswer]]:
            assert settings == {}
            shifts = [np.float32(one.words["shift"]) for one in REQUESTS]
            xs = [torch.tensor([[0.5, -0.5, 1.0, 2.0]]) + float(shift) for shift in shifts]
            with torch.no_grad():
                found = [picture_of(part.module(x).numpy() + error) for x in xs]
            return [(asked, TaskAnswer(one)) for asked, one in zip(REQUESTS, found, strict=True)]

        return replace(model, task="tensors", task_cases=cases)

    patch.setattr(steps, "find_model", with_cases)
    patch.setitem(REHEARSALS, "tensors", __name__)  # type: ignore[arg-type]
    return build(plan_for("scaled", output, how, **tables), silent)


def test_what_is_right_is_proven_and_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = built(tmp_path / "m.port", monkeypatch)
    assert [verdict.part.name for verdict in result.verdicts] == ["network", WHOLE_TASK]
    assert result.verdicts[-1].status is Status.PASS, result.verdicts[-1].table()
    assert result.manifest.variants["fp32"].proven
    assert [verdict["part"] for verdict in result.to_json()["verdicts"]] == ["network", WHOLE_TASK]
    assert WHOLE_TASK in (result.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    with open_bundle(result.path) as bundle:
        assert has_task_proof(bundle)
    report = json.loads(report_path(result.path).read_bytes())
    assert report["task_peak_memory_bytes"] == result.task_peak_bytes
    assert (result.task_peak_bytes is None) == (sys.platform != "linux")


def test_nothing_is_written_of_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "m.port"
    with pytest.raises(MismatchError) as caught:
        built(output, monkeypatch, 1e-4)
    assert caught.value.what.startswith("case 'one': ")
    assert caught.value.where == "part (whole task), variant fp32"
    assert list(tmp_path.iterdir()) == []
    assert not report_path(output).exists()


def test_a_failure_that_is_allowed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = built(tmp_path / "m.port", monkeypatch, 1e-4, replace(QUICK, allow=frozenset({"failed"})))
    entry = result.manifest.variants["fp32"]
    assert not entry.proven
    assert "case 'one': " in entry.note


def test_fixed_axes_leave_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = built(tmp_path / "m.port", monkeypatch, build={"fix": {"batch": 1}})
    assert result.manifest.variants["fp32"].note == "the task is not proven as a whole: some axes are fixed"
    assert [verdict.part.name for verdict in result.verdicts] == ["network"]
    assert result.task_peak_bytes is None
    with open_bundle(result.path) as bundle:
        assert not has_task_proof(bundle)


def test_it_is_left_out_by_name_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the original program would stop the build; it is not asked."""
    told: list[str] = []
    monkeypatch.setattr(tested, "_check_room", lambda _model: told.append("room"))
    result = built(tmp_path / "m.port", monkeypatch, 1e-4, replace(QUICK, allow=frozenset({"unproven-task"})))
    entry = result.manifest.variants["fp32"]
    note = "the task is not proven as a whole: --allow unproven-task"
    assert (entry.proven, entry.note, told) == (True, note, [])
    assert [verdict.part.name for verdict in result.verdicts] == ["network"]
    assert f"- {note}\n" in (result.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    with open_bundle(result.path) as bundle:
        assert not has_task_proof(bundle)
        assert [verdict.status for verdict in verify_bundle(bundle, open_session)] == [Status.PASS]


def test_too_little_memory_is_said_before_the_original_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "free_memory_bytes", lambda *, with_swap: 3 * with_swap)
    with pytest.raises(SourceError) as caught:
        built(tmp_path / "m.port", monkeypatch)
    assert str(caught.value) == (
        "the proof of the whole task opens all graphs beside the model: 4 bytes, and 3 bytes of memory are "
        "left\n"
        "  do:    --allow unproven-task builds without this proof: each part is proven alone, and the "
        "manifest says so"
    )
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tested, "free_memory_bytes", lambda *, with_swap: None)  # noqa: ARG005  (called by name)
    built(tmp_path / "m.port", monkeypatch)
