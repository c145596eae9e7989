from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from anyport.compress.judging import judge_by
from anyport.errors import SourceError
from anyport.runtime import open_session
from anyport.verify import CosineSimilarity, Status, UserMetric
from tests.compress.smallnets import PICTURES, convnet, pictures

if TYPE_CHECKING:
    from pathlib import Path

METRICS = {"y": CosineSimilarity()}


def test_the_exact_graph_is_as_good_as_itself(tmp_path: Path) -> None:
    graph = convnet(tmp_path / "a.onnx")
    judge = judge_by((graph, "none"), pictures(80), PICTURES, METRICS, None)
    session = open_session(graph)
    found = judge(session)
    session.close()
    assert [one.output for one in found.measures] == ["y"]
    assert found.measures[0].value == pytest.approx(1.0)
    assert found.n_samples == 80


def test_ones_own_metric_is_asked_once_for_the_exact_graph_and_once_for_each_other(tmp_path: Path) -> None:
    graph = convnet(tmp_path / "a.onnx")
    figures = iter([0.9, 0.9, 0.8])

    def falling(run: Any) -> float:
        run(next(iter(pictures(1))))
        return next(figures)

    user = UserMetric("m.py:falling", falling, max_drop=0.05)
    judge = judge_by((graph, "none"), pictures(80), PICTURES, METRICS, user)
    assert judge.exact == 0.9
    session = open_session(graph)
    assert judge(session).measures[0].status is Status.PASS
    assert judge(session).measures[0].status is Status.FAIL
    session.close()


def test_a_metric_that_fails_is_the_users_mistake(tmp_path: Path) -> None:
    def broken(_run: Any) -> float:
        raise ValueError("no labels")

    user = UserMetric("m.py:broken", broken)
    with pytest.raises(SourceError, match="'m.py:broken' fails: ValueError: no labels"):
        judge_by((convnet(tmp_path / "a.onnx"), "none"), pictures(80), PICTURES, METRICS, user)
