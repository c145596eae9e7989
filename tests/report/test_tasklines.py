"""The line of the whole task: proven again, wrong, left out by name, or not made for such a task."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from anyport.bundle import open_bundle
from anyport.report import CheckSettings, Mark, release_checklist
from anyport.runtime import open_session
from tests.build.building import QUICK
from tests.build.test_task_proving import built
from tests.report.listing import Subject, listed

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from anyport.report.line import Line


class Louder:
    """A graph whose answers are a little larger."""

    def __init__(self, graph: Any, options: Any) -> None:
        self.session = open_session(graph, options)
        self.inputs, self.outputs = self.session.inputs, self.session.outputs
        self.close = self.session.close

    def run(self, feeds: Any) -> Any:
        return {name: array + np.float32(1e-4) for name, array in self.session.run(feeds).items()}


def line_of(path: Path, open_graph: Any = open_session) -> Line:
    with open_bundle(path) as bundle:
        found = release_checklist(bundle, CheckSettings(n_runs=4), open_graph)
    return next(line for line in found.lines if line.name == "whole task")


def test_what_is_proven_again_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = built(tmp_path / "m.port", monkeypatch).path
    found = line_of(path)
    assert (found.mark, found.do) == (Mark.PASS, "")
    assert found.evidence == ("2 requests: worst picture equal, 115 needed; SSIM 1.0000000, uint8 off by 0")
    broken = line_of(path, Louder)
    assert (broken.mark, broken.do) == (Mark.FAIL, "the cases and their figures: --json")
    assert broken.evidence.startswith("case 'one': ")


def test_what_was_left_out_by_name_is_untested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = replace(QUICK, allow=frozenset({"unproven-task"}))
    found = line_of(built(tmp_path / "m.port", monkeypatch, how=how).path)
    assert found.mark is Mark.UNTESTED
    assert found.evidence == "the task is not proven as a whole: --allow unproven-task"
    assert found.do == (
        "build it again, where the original program can run: anyport build, without --allow and --fix"
    )


def test_a_task_that_has_no_such_proof(tmp_path: Path) -> None:
    found = listed(tmp_path, Subject()).lines[-1]
    assert (found.name, found.mark) == ("whole task", Mark.NOT_APPLICABLE)
    assert found.evidence == ("no such proof is made for the task 'classify': each graph is proven alone")
