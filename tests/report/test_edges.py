from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from anyport.bundle import PartEntry
from anyport.report.edges import Edge, edge_runs
from anyport.runtime import SessionOptions, open_session
from tests.report.listing import SCORES, Subject, Wrapped
from tests.runtime.networks import Tensors, Words

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = ["a picture of 1 x 1", "a picture of 37 x 53", "a picture of 1 x 500"]


def edges(folder: Path, subject: Subject) -> tuple[Edge, ...]:
    with subject.open(folder) as opened:
        graph = opened.graph_file("network")
        return edge_runs(opened, graph, open_session(graph, SessionOptions()), SessionOptions())


def test_the_task_looks_at_the_smallest_and_at_odd_pictures(tmp_path: Path) -> None:
    assert edges(tmp_path, Subject()) == tuple(Edge(name, "") for name in PICTURES)


def test_the_task_is_opened_as_the_part_was(tmp_path: Path) -> None:
    with Subject().open(tmp_path) as opened:
        graph = opened.graph_file("network")
        options = SessionOptions(libraries=(tmp_path / "none.so",))
        [found] = edge_runs(opened, graph, open_session(graph), options)
    assert found.name == "the task 'classify' opens"
    assert "none.so" in found.problem


def test_a_model_that_breaks_on_a_picture_is_told(tmp_path: Path) -> None:
    nan = Tensors(Subject().tensors.inputs, {"logits": SCORES}, {"ten": np.array([np.nan], np.float32)})
    found = edges(tmp_path, Subject(tensors=nan))
    assert [edge.name for edge in found] == PICTURES
    assert all("the model's scores for" in edge.problem for edge in found)


def test_sizes_between_the_steps_must_be_refused(tmp_path: Path) -> None:
    part = Words().part
    stepped = PartEntry(part.inputs, part.outputs, {"batch": "2..64:2"})
    subject = Subject(words=replace(Words(), task=None, settings={}, part=stepped), sizes=(2, 4))
    assert edges(tmp_path, subject) == (Edge("batch=3 is refused", ""),)
    with subject.open(tmp_path / "again" if (tmp_path / "again").mkdir() is None else tmp_path) as opened:
        graph = opened.graph_file("network")
        careless = Wrapped(open_session(graph.path), lambda _feeds, outputs: outputs)
        assert edge_runs(opened, graph, careless, SessionOptions()) == (
            Edge("batch=3 is refused", "it was computed"),
        )
