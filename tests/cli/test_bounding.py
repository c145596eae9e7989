"""What `anyport run --max-memory` says around a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyport.cli.bounding import MemoryLines
from anyport.runtime.onnxfile import WeightSizes
from anyport.task import memory_peak
from anyport.task.memory_policy import plan_memory

if TYPE_CHECKING:
    import pytest

MB = 10**6
PLAN = plan_memory({"a": WeightSizes(0, 30 * MB), "b": WeightSizes(0, 50 * MB)}, 200 * MB)


def test_the_plan_is_said_once_and_then_only_what_changes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = MemoryLines(200 * MB, is_shown=True)
    with lines.watching():
        lines.told(PLAN)
        relieved = PLAN.relieved("b")
        assert relieved is not None
        lines.told(relieved)
        again = relieved.relieved("a")
        assert again is not None
        lines.told(again)
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.splitlines()[:-1] == [
        "memory   a: stays open, weights copied (30.0 MB copied)",
        "memory   b: stays open, weights copied (50.0 MB copied)",
        "memory   a: opened when needed, weights copied (30.0 MB copied)",
        "memory   b: opened when needed, weights stay in the file (0 bytes copied, 50.0 MB not)",
        "memory   a: opened when needed, weights stay in the file (0 bytes copied, 30.0 MB not)",
    ]
    assert found.err.splitlines()[-1].endswith(": weights and computing (200.0 MB at most), Python, arrays")
    record = lines.record()["memory"]
    assert set(record) == {"limit_bytes", "parts", "peak_bytes"}
    assert record["parts"] == {"a": "mapped", "b": "mapped"}


def test_where_the_peak_is_not_told_that_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_peak, "own_memory", lambda: None)
    lines = MemoryLines(200 * MB, is_shown=True)
    with lines.watching():
        lines.told(PLAN)
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("memory   peak is not told by this system: weights")
    )
    assert lines.record()["memory"]["peak_bytes"] is None


def test_a_program_and_a_run_without_a_limit_are_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for lines in (MemoryLines(200 * MB, is_shown=False), MemoryLines(None, is_shown=True)):
        with lines.watching():
            pass
    quiet = MemoryLines(200 * MB, is_shown=False)
    with quiet.watching():
        quiet.told(PLAN)
    assert capsys.readouterr() == ("", "")
    assert MemoryLines(None, is_shown=True).record() == {}
    assert quiet.record()["memory"]["parts"] == {"a": "together", "b": "together"}
