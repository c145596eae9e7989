from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.graph.equality import Judge, record_answers
from anyport.runtime import SessionOptions, open_session
from anyport.verify import Answer, CasePlan, Gates, Leg, SessionReference, Status
from tests.graph import planted
from tests.graph.smallgraphs import equality, perceptron

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.cases import Case
    from anyport.graph.equality import Judgement


class Constant:
    """A reference that answers the same to everything."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, case: Case) -> Answer:
        self.asked.append(case.name)
        return Answer({"y": np.zeros((case.sizes["batch"], 16), np.float32)}, {})


def judged(name: str, folder: Path, gates: Gates | None = None) -> Judgement:
    source, target = perceptron(folder / "in.onnx"), folder / "out.onnx"
    planted.TOOLS[name](source, target)
    return Judge(source, replace(equality(), gates=gates or Gates())).judge(target, "all")


def test_an_equal_graph(tmp_path: Path) -> None:
    found = judged("honest", tmp_path)
    assert (found.status, found.reason) == ("equal", "")
    assert found.largest_difference is not None
    assert found.largest_difference < 1e-6


def test_a_different_graph(tmp_path: Path) -> None:
    found = judged("wrong", tmp_path)
    assert found.status == "different"
    assert found.reason.startswith("level all: output 'y' is off by ")
    assert (found.largest_difference or 0) > 1e-3


def test_a_gate_of_the_user_counts_too(tmp_path: Path) -> None:
    assert judged("wrong", tmp_path, Gates(atol=1.0)).status == "different"


def test_missing_weights_make_a_graph_different_whatever_it_answers(tmp_path: Path) -> None:
    source, target = perceptron(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    planted.TOOLS["honest"](source, target)
    asked: list[Path] = []

    def account(path: Path) -> Leg:
        asked.append(path)
        return Leg("weights", Status.FAIL, "1 of 3 weights is not there")

    judge = Judge(source, replace(equality(), account=account))
    assert judge.judge(target, "all").status == "different"
    assert judge.judge(target, "none").reason == "level none: 1 of 3 weights is not there"
    assert asked == [target]


def test_a_graph_that_does_not_open(tmp_path: Path) -> None:
    found = judged("garbage", tmp_path)
    assert found.status == "failed"
    assert found.reason.startswith("level all: out.onnx is no whole .onnx file: ")


def test_a_reference_that_reacts_to_nothing_proves_nothing(tmp_path: Path) -> None:
    source = perceptron(tmp_path / "in.onnx")
    session = open_session(source, SessionOptions(optimization="none"))
    plan = equality().plan
    same = replace(equality(), plan=replace(plan, cases=plan.cases[:1]), reference=SessionReference(session))
    found = Judge(source, same).judge(source, "none")
    assert found.status == "unproven"


def test_where_power_was_shown_before_only_the_answers_count(tmp_path: Path) -> None:
    source = perceptron(tmp_path / "in.onnx")
    plan = equality().plan
    few = replace(equality(), plan=replace(plan, cases=plan.cases[:1]), shows_power=False)
    assert Judge(source, few).judge(source, "all").status == "equal"
    wrong = tmp_path / "wrong.onnx"
    planted.TOOLS["wrong"](source, wrong)
    assert Judge(source, few).judge(wrong, "all").status == "different"


def test_the_reference_is_asked_once_however_often_is_judged(tmp_path: Path) -> None:
    source, reference = perceptron(tmp_path / "in.onnx"), Constant()
    plan = equality().plan
    answers = record_answers(reference, plan)
    assert reference.asked == [case.name for case in plan.cases]
    assert answers.plan == plan
    assert answers.answer(plan.cases[2]) is answers.answer(plan.cases[2])
    judge = Judge(source, equality())
    assert judge.judge(source, "all") is judge.judge(source, "all")


@pytest.mark.parametrize(("budget_bytes", "n_kept"), [(0, 1), (3 * 64, 3), (3 * 64 + 63, 3), (1 << 20, 8)])
def test_answers_that_do_not_fit_are_dropped_with_a_word(budget_bytes: int, n_kept: int) -> None:
    plan = equality().plan
    cases = tuple(replace(case, sizes={"batch": 1}) for case in plan.cases)
    found = record_answers(Constant(), CasePlan(cases, ("before",)), budget_bytes)
    assert len(cases) == 8
    assert found.plan.cases == cases[:n_kept]
    word = "no memory to keep its answer of 64 bytes"
    assert found.plan.dropped == ("before", *(f"{case.name}: {word}" for case in cases[n_kept:]))
