"""Ratios of CPU time, by a clock that the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.bench.pairing import (
    PairedRatio,
    PairSettings,
    paired_ratios,
    ratios,
    shuffled,
    time_rounds,
)
from anyport.errors import UsageError
from tests.bench.fakes import FakeMachine

if TYPE_CHECKING:
    from collections.abc import Callable


SETTINGS = PairSettings(n_rounds=12, n_repeats=2, warmup=1)


def test_the_ratio_is_base_over_run_and_one_for_the_base() -> None:
    machine = FakeMachine()
    runs = {"fp32": machine.run("fp32", 4.0), "int8": machine.run("int8", 1.0), "bad": machine.run("bad", 8)}
    found = paired_ratios(runs, "fp32", SETTINGS, machine.clocks())
    assert list(found) == ["fp32", "int8", "bad"]
    assert found["fp32"] == PairedRatio(1.0, 1.0, 1.0, 4.0)
    assert found["int8"].median == pytest.approx(4.0)
    assert found["bad"].median == pytest.approx(0.5)


def test_waiting_for_a_core_counts_in_wall_time_only() -> None:
    machine = FakeMachine()
    runs = {"a": machine.run("a", 1.0, waits_s=5.0), "b": machine.run("b", 1.0)}
    timings = time_rounds(runs, SETTINGS, machine.clocks())
    by_cpu = ratios({name: t.cpu_s for name, t in timings.items()}, "a")
    by_wall = ratios({name: t.wall_s for name, t in timings.items()}, "a")
    assert by_cpu["b"].median == pytest.approx(1.0)
    assert by_wall["b"].median == pytest.approx(6.0)


def test_a_slow_round_hits_everyone_alike() -> None:
    machine = FakeMachine()

    def drifting(name: str, cost_s: float) -> Callable[[], None]:
        inner = machine.run(name, cost_s)

        def work() -> None:
            n_round = max(len(machine.calls) - 2, 0) // 4  # 2 warm-up calls, then 4 calls a round
            machine.slowdown = 1.0 + n_round
            inner()

        return work

    found = paired_ratios({"a": drifting("a", 3.0), "b": drifting("b", 1.0)}, "a", SETTINGS, machine.clocks())
    assert found["b"].low == pytest.approx(3.0)
    assert found["b"].high == pytest.approx(3.0)


def test_of_the_repeats_the_shortest_counts() -> None:
    times = {"a": np.array([[2.0, 9.0], [2.0, 2.0]]), "b": np.array([[7.0, 1.0], [1.0, 50.0]])}
    assert ratios(times, "a")["b"] == PairedRatio(2.0, 2.0, 2.0, 1.0)


def test_the_quartiles_are_those_of_the_rounds() -> None:
    times = {"a": np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]), "b": np.ones((5, 1))}
    found = ratios(times, "a")["b"]
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
    assert not found.is_tie
    assert ratios(times, "b")["b"].is_tie


def test_everyone_runs_as_often_as_was_asked() -> None:
    machine = FakeMachine()
    paired_ratios({n: machine.run(n, 1.0) for n in "abc"}, "a", SETTINGS, machine.clocks())
    assert {n: machine.calls.count(n) for n in "abc"} == dict.fromkeys("abc", 1 + 12 * 2)
    assert machine.calls[:3] == ["a", "b", "c"]


def test_the_order_is_shuffled_and_the_same_for_a_seed() -> None:
    def orders(seed: int) -> list[list[str]]:
        return [shuffled("abcd", seed, number) for number in range(200)]

    assert orders(3) == orders(3)
    assert orders(3) != orders(4)
    assert all(sorted(order) == list("abcd") for order in orders(3))
    firsts = [order[0] for order in orders(3)]
    assert all(30 <= firsts.count(name) <= 70 for name in "abcd")


def test_one_run_alone_is_its_own_base() -> None:
    machine = FakeMachine()
    assert paired_ratios({"a": machine.run("a", 2.0)}, "a", SETTINGS, machine.clocks())["a"].median == 1.0


def test_a_base_that_is_no_run_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        paired_ratios({"fp32": lambda: None, "int8": lambda: None}, "fp33")
    assert str(caught.value) == "there is no run 'fp33' to compare with (did you mean 'fp32'?)"


def test_a_run_too_short_for_the_clock_is_refused() -> None:
    machine = FakeMachine()
    with pytest.raises(UsageError) as caught:
        paired_ratios({"a": machine.run("a", 0.05)}, "a", SETTINGS, machine.clocks(resolution_s=0.015625))
    assert str(caught.value) == (
        "run 'a' took 0.05 s of CPU time, too little for a clock that goes in steps of 0.0156 s\n"
        "  do:    measure a larger input, or several calls as one run"
    )
    with pytest.raises(UsageError, match="took 0 s of CPU time"):
        paired_ratios({"a": machine.run("a", 0.0)}, "a", SETTINGS, machine.clocks())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"n_rounds": 0}, "n_rounds = 0: the least is 1"),
        ({"n_repeats": 0}, "n_repeats = 0: the least is 1"),
        ({"n_threads": 0}, "n_threads = 0: the least is 1"),
        ({"warmup": -1}, "warmup = -1: the least is 0"),
    ],
)
def test_numbers_that_measure_nothing_are_refused(settings: dict[str, int], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        PairSettings(**settings)
    assert str(caught.value) == text


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_systems_clocks_see_work(n_threads: int) -> None:
    settings = PairSettings(n_rounds=2, n_repeats=1, warmup=0, n_threads=n_threads)
    timings = time_rounds({"sum": lambda: sum(range(50_000))}, settings)["sum"]
    assert timings.cpu_s.shape == timings.wall_s.shape == (2, 1)
    assert (timings.cpu_s > 0).all()
    assert (timings.wall_s > 0).all()
