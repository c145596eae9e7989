from __future__ import annotations

import pytest

from anyport.bench.batches import BatchPlan, measure_batches, plan_batches
from anyport.bench.blank import Blank
from anyport.bench.heat import BenchSettings, Heat
from anyport.tensors import Signature, tensor
from tests.bench.fakes import FakeMachine, FakeSession, candidate, contest


def open_heat(settings: BenchSettings, *sessions: FakeSession) -> Heat:
    machine = sessions[0].machine
    heat = Heat(contest(*(candidate(s) for s in sessions)), 1, settings, machine.clocks())
    heat.open_all()
    return heat


def test_items_per_second_grow_where_a_run_has_a_fixed_cost() -> None:
    machine = FakeMachine()
    steady, waiting = FakeSession(machine, "a", 0.01), FakeSession(machine, "b", 0.01, waits_s=0.03)
    heat = open_heat(BenchSettings(batches=(4, 1), budget_s=100.0), steady, waiting)
    plan = plan_batches(heat)
    assert plan == BatchPlan("batch", (1, 4), 50.0)
    found = measure_batches(heat, plan, 0.05, lambda _step, _text: None)
    assert found["a"] == {1: pytest.approx(100), 4: pytest.approx(100)}
    assert found["b"] == {1: pytest.approx(25), 4: pytest.approx(4 / 0.07)}


def test_a_batch_that_someone_refuses_is_blank_for_them_alone() -> None:
    machine = FakeMachine()
    heat = open_heat(
        BenchSettings(batches=(1, 8)), FakeSession(machine, "a", 0.01), FakeSession(machine, "b", 0.01, 0, 4)
    )
    plan = plan_batches(heat)
    assert isinstance(plan, BatchPlan)
    found = measure_batches(heat, plan, 0.02, lambda _step, _text: None)
    assert found["a"][8] == pytest.approx(100)
    assert found["b"][8] == Blank("batch 8: 8 rows are too many")


def test_a_batch_that_takes_longer_than_there_is_time_is_not_tried() -> None:
    machine = FakeMachine()
    heat = open_heat(BenchSettings(batches=(1, 32), budget_s=10.0), FakeSession(machine, "a", 0.1))
    plan = plan_batches(heat)
    assert isinstance(plan, BatchPlan)
    steps: list[str] = []
    found = measure_batches(heat, plan, 0.1, lambda _step, text: steps.append(text))
    assert found["a"][32] == Blank("batch 32 takes about 13 s, 6.9 s are left: raise --seconds")
    assert steps == ["batch = 1"]
    assert machine.wall_s < 10.0


def test_the_default_batches_are_powers_of_two() -> None:
    plan = plan_batches(open_heat(BenchSettings(), FakeSession(FakeMachine(), "a", 0.1)))
    assert isinstance(plan, BatchPlan)
    assert plan.sizes == (1, 2, 4, 8, 16, 32)


def test_without_a_batch_there_is_no_throughput() -> None:
    machine = FakeMachine()
    fixed = Signature((tensor("x", "float32[1, 3]"),), ())
    heat = Heat(
        contest(candidate(FakeSession(machine, "a", 1.0)), signature=fixed),
        1,
        BenchSettings(),
        machine.clocks(),
    )
    assert plan_batches(heat) == Blank("no dynamic axis is the first of every input: there is no batch")
