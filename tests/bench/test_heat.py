from __future__ import annotations

import pytest

from anyport.bench.heat import BenchSettings, Heat
from anyport.errors import SessionError, UsageError
from tests.bench.fakes import FakeMachine, FakeSession, broken, candidate, contest


def heat(machine: FakeMachine, *costs_s: float, budget_s: float = 10.0) -> Heat:
    everyone = [candidate(FakeSession(machine, f"s{i}", cost)) for i, cost in enumerate(costs_s)]
    return Heat(contest(*everyone, broken("b")), 2, BenchSettings(budget_s=budget_s), machine.clocks())


def test_everyone_is_opened_and_who_does_not_open_says_why() -> None:
    machine = FakeMachine()
    found = heat(machine, 1.0, 2.0)
    found.open_all()
    assert machine.opened == ["s0/2", "s1/2"]
    assert list(found.sessions) == ["s0", "s1"]
    assert found.blanks["b"].why == "b does not open with 2 threads"
    found.close()
    assert machine.closed == ["s0", "s1"]


def test_who_opens_and_does_not_run_is_closed() -> None:
    machine = FakeMachine()
    picky = FakeSession(machine, "picky", 1.0, max_batch=0)
    found = Heat(
        contest(candidate(picky), candidate(FakeSession(machine, "ok", 1.0))),
        1,
        BenchSettings(),
        machine.clocks(),
    )
    found.open_all()
    assert machine.closed == ["picky"]
    assert found.blanks["picky"].why == "1 rows are too many"


def test_when_nobody_opens_the_first_says_why() -> None:
    machine = FakeMachine()
    nobody = Heat(contest(broken("a"), broken("b")), 1, BenchSettings(), machine.clocks())
    with pytest.raises(SessionError, match="a does not open with 1 threads"):
        nobody.open_all()


@pytest.mark.parametrize(("budget_s", "n_passes"), [(100.0, 3), (10.0, 1)])
def test_a_slow_round_is_guessed_from_one_pass(budget_s: float, n_passes: int) -> None:
    machine = FakeMachine()
    found = heat(machine, 1.0, 2.0, budget_s=budget_s)
    found.open_all()
    machine.calls.clear()
    assert found.round_s(found.feeds({"batch": 1})) == pytest.approx(3.0)
    assert machine.calls == ["s0", "s1"] * n_passes


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"threads": ()}, "threads []: write different numbers from 1 on, such as 1,2"),
        ({"threads": (2, 2)}, "threads [2, 2]: write different numbers from 1 on, such as 1,2"),
        ({"threads": (0,)}, "threads [0]: write different numbers from 1 on, such as 1,2"),
        ({"batches": ()}, "batches []: write numbers from 1 on, such as 1,8,32"),
        ({"batches": (0, 1)}, "batches [0, 1]: write numbers from 1 on, such as 1,8,32"),
        ({"budget_s": 0.0}, "0 seconds are no time to measure in"),
        ({"budget_s": float("nan")}, "nan seconds are no time to measure in"),
        ({"n_children": 0}, "n_children = 0: the least is 1"),
    ],
)
def test_settings_that_measure_nothing_are_refused(words: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        BenchSettings(**words)
    assert str(caught.value) == text
