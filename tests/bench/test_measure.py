"""A whole measurement, on a machine where only the test makes time pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.bench.blank import Blank
from anyport.bench.heat import BenchSettings, Heat
from anyport.bench.measure import Instruments, bench, choose_rounds
from anyport.bench.result import Latency, Row, Speedup
from anyport.errors import SessionError
from anyport.tensors import Signature, tensor
from tests.bench.fakes import SIGNATURE, FakeMachine, FakeSession, broken, candidate, contest

if TYPE_CHECKING:
    from collections.abc import Mapping


def tools(machine: FakeMachine, resolution_s: float = 0.0) -> Instruments:
    return Instruments(clocks=lambda _n: machine.clocks(resolution_s), opening=machine.opening)


def rows(machine: FakeMachine, *names: str) -> dict[str, Row]:
    sessions = {
        "pytorch": candidate(FakeSession(machine, "pytorch", 0.004)),
        "fp32": candidate(FakeSession(machine, "fp32", 0.002, waits_s=0.001)),
        "int8": candidate(FakeSession(machine, "int8", 0.001)),
        "broken": broken("broken"),
    }
    result = bench(contest(*(sessions[name] for name in names)), BenchSettings(), tools(machine))
    return {row.name: row for row in result.rows}


def test_every_column_has_its_number() -> None:
    machine = FakeMachine()
    found = rows(machine, "pytorch", "fp32", "int8")
    fp32 = found["fp32"]
    assert isinstance(fp32.latency, Latency)
    assert fp32.latency.median_s == pytest.approx(0.003)
    assert fp32.latency.cpu_s == pytest.approx(0.002)
    assert fp32.latency.n_runs == 900  # 20 times 3 orders, 3 rounds, 5 repeats
    assert isinstance(fp32.speedup_cpu, Speedup)
    assert isinstance(fp32.speedup_wall, Speedup)
    assert fp32.speedup_cpu.median == pytest.approx(2.0)
    assert fp32.speedup_wall.median == pytest.approx(4 / 3)
    assert found["pytorch"].speedup_cpu == Speedup(1.0, 1.0, 1.0)
    assert isinstance(fp32.throughput, dict)
    assert fp32.throughput[32] == pytest.approx(32 / 0.065)
    assert (fp32.load_s, fp32.peak_bytes, fp32.size_bytes) == (1.5, 5000, 4000)


def test_who_does_not_open_has_a_row_of_reasons() -> None:
    row = rows(FakeMachine(), "fp32", "broken")["broken"]
    why = Blank("broken does not open with 1 threads")
    assert row == Row("broken", 1, why, why, why, why, why, why, 4000)


def test_a_base_that_does_not_open_leaves_the_others_their_latency() -> None:
    row = rows(FakeMachine(), "broken", "int8")["int8"]
    assert row.speedup_cpu == Blank("nothing to compare with: 'broken' does not run")
    assert isinstance(row.latency, Latency)


def test_when_nobody_opens_nothing_is_reported() -> None:
    with pytest.raises(SessionError, match="broken does not open"):
        rows(FakeMachine(), "broken")


def test_each_number_of_threads_is_measured_apart() -> None:
    machine = FakeMachine()
    one = contest(candidate(FakeSession(machine, "a", 0.01)))
    result = bench(one, BenchSettings(threads=(1, 2)), tools(machine))
    assert [(row.name, row.n_threads) for row in result.rows] == [("a", 1), ("a", 2)]
    assert machine.opened[:9] == ["a/1", "a/2"]
    assert machine.closed == ["a", "a"]
    assert [order.n_threads for order in machine.orders] == [1, 2]


def test_a_child_is_asked_for_the_same_inputs() -> None:
    machine = FakeMachine()
    bench(contest(candidate(FakeSession(machine, "a", 0.01)), batch=5), BenchSettings(seed=3), tools(machine))
    [order] = machine.orders
    assert (order.subject, order.sizes, order.inputs) == (
        {"name": "a"},
        {"batch": 5},
        {"x": "float32[batch, 3]"},
    )
    assert list(order.fills) == ["x"]


def test_a_clock_too_coarse_leaves_the_column_blank() -> None:
    machine = FakeMachine()
    everyone = contest(candidate(FakeSession(machine, "a", 0.001)), candidate(FakeSession(machine, "b", 0.1)))
    result = bench(everyone, BenchSettings(), tools(machine, resolution_s=0.0156))
    for row in result.rows:
        assert row.speedup_cpu == Blank(
            "run 'a' took 0.001 s of CPU time, too little for a clock that goes in steps of 0.0156 s"
        )
        assert isinstance(row.speedup_wall, Speedup)


def test_without_a_batch_the_throughput_says_so() -> None:
    machine = FakeMachine()
    fixed = Signature((tensor("x", "float32[1, 3]"),), SIGNATURE.outputs)
    one = contest(candidate(FakeSession(machine, "a", 0.01)), signature=fixed)
    [row] = bench(one, BenchSettings(), tools(machine)).rows
    assert isinstance(row.throughput, Blank)


def test_steps_are_told() -> None:
    machine, told = FakeMachine(), []
    one = contest(candidate(FakeSession(machine, "a", 0.01)))
    how = Instruments(
        lambda _n: machine.clocks(), machine.opening, lambda *words: told.append(" ".join(words))
    )
    bench(one, BenchSettings(batches=(2,)), how)
    assert told == [
        "bench network, 1 thread: a",
        "rounds 60 rounds of 5 runs of each",
        "batch batch = 2",
        "memory 3 processes of each",
    ]


@pytest.mark.parametrize(
    ("round_s", "n_rounds", "n_repeats"),
    [(0.0001, 60, 5), (0.1, 20, 5), (0.25, 40, 1), (5.0, 9, 1), (0.0, 60, 5)],
)
def test_slow_runs_are_repeated_less(round_s: float, n_rounds: int, n_repeats: int) -> None:
    machine = FakeMachine()
    heat = Heat(contest(candidate(FakeSession(machine, "a", 1))), 2, BenchSettings(seed=7), machine.clocks())
    how = choose_rounds(round_s, heat)
    assert (how.n_rounds, how.n_repeats, how.n_threads, how.seed) == (n_rounds, n_repeats, 2, 7)


class Placed(FakeSession):
    """Whoever is opened later is faster, as on a real machine."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        in_this_order = self.machine.opened[-3:]
        place = in_this_order.index(f"{self.name}/1") if len(in_this_order) == 3 else 0
        self.machine.work(self.name, len(feeds) * self.cost_s / (1 + 0.15 * place))
        return {"y": np.zeros(1, np.float32)}


def test_who_is_opened_later_is_not_faster_for_it() -> None:
    machine = FakeMachine()
    copies = contest(*(candidate(Placed(machine, name, 0.01)) for name in "abc"))
    result = bench(copies, BenchSettings(batches=(1,)), tools(machine))
    assert machine.opened[:9] == ["a/1", "b/1", "c/1", "b/1", "c/1", "a/1", "c/1", "a/1", "b/1"]
    rates = []
    for row in result.rows:
        assert isinstance(row.speedup_cpu, Speedup)
        assert isinstance(row.speedup_wall, Speedup)
        assert isinstance(row.throughput, dict)
        assert row.speedup_cpu.median == pytest.approx(1.0)
        assert row.speedup_wall.median == pytest.approx(1.0)
        rates.append(row.throughput[1])
    assert rates == pytest.approx([rates[0]] * 3)


class Unlucky(FakeSession):
    """Every fifth time that it is opened, one that is not the base is a hundred times slower."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        is_slow = self.name != "a" and len(self.machine.opened) // 3 % 5 == 0
        noise = np.random.default_rng(len(self.machine.calls)).pareto(3.0)
        self.machine.work(self.name, len(feeds) * self.cost_s * (100 if is_slow else 1) * (1 + 0.01 * noise))
        return {"y": np.zeros(1, np.float32)}


@pytest.mark.parametrize("cost_s", [0.0001, 0.01, 1.0])
def test_a_speedup_lies_within_its_own_quartiles(cost_s: float) -> None:
    machine = FakeMachine()
    everyone = contest(*(candidate(Unlucky(machine, name, cost_s)) for name in "abc"))
    for row in bench(everyone, BenchSettings(batches=(1,)), tools(machine)).rows:
        for speedup in (row.speedup_cpu, row.speedup_wall):
            assert isinstance(speedup, Speedup)
            assert speedup.low <= speedup.median <= speedup.high


def test_orders_of_opening_share_the_time_and_are_told() -> None:
    machine, told = FakeMachine(), []
    pair = contest(*(candidate(FakeSession(machine, name, 0.5)) for name in "ab"))
    how = Instruments(lambda _n: machine.clocks(), machine.opening, lambda *w: told.append(" ".join(w)))
    bench(pair, BenchSettings(batches=(1,)), how)
    assert told == [
        "bench network, 1 thread: a, b",
        "rounds 3 rounds of 1 runs of each, opened 4 times in turning order",
        "batch batch = 1",
        "memory 3 processes of each",
    ]
    assert machine.opened == ["a/1", "b/1", "b/1", "a/1"] * 2


def test_who_does_not_open_is_asked_once() -> None:
    machine = FakeMachine()
    asked: list[str] = []

    def opens(_n_threads: int) -> FakeSession:
        asked.append("broken")
        raise SessionError("it does not open")

    everyone = contest(
        candidate(FakeSession(machine, "a", 0.01)),
        replace(candidate(FakeSession(machine, "b", 1)), open=opens),
    )
    rows_of = bench(everyone, BenchSettings(), tools(machine)).rows
    assert asked == ["broken"]
    assert rows_of[1].latency == Blank("it does not open")


def test_a_batch_that_one_order_did_not_measure_is_blank() -> None:
    machine = FakeMachine()

    class Tiring(FakeSession):
        def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            if feeds["x"].shape[0] == 8 and len(self.machine.opened) > 2:
                raise SessionError("too tired for 8")
            return FakeSession.run(self, feeds)

    pair = contest(candidate(Tiring(machine, "a", 0.01)), candidate(FakeSession(machine, "b", 0.01)))
    first, second = bench(pair, BenchSettings(batches=(1, 8)), tools(machine)).rows
    assert isinstance(first.throughput, dict)
    assert isinstance(second.throughput, dict)
    assert first.throughput[8] == Blank("batch 8: too tired for 8")
    assert second.throughput[8] == pytest.approx(100)
