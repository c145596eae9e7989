from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.bench.blank import Blank
from anyport.errors import UsageError
from anyport.report import runs
from anyport.report.runs import CheckSettings, Soak, run_part, soak
from anyport.runtime import SessionOptions, open_session
from tests.report.listing import QUICK, Subject, Wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anyport.bundle import GraphFile


class Counting:
    """A session without a graph."""

    inputs, outputs = (), ()

    def __init__(self) -> None:
        self.n_runs = 0

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.n_runs += 1
        return dict(feeds)

    def close(self) -> None:
        pass


def test_memory_is_read_before_half_way_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    session, levels = Counting(), []

    def held() -> int:
        levels.append(session.n_runs)
        return 1000 * len(levels)

    monkeypatch.setattr(runs, "anonymous_memory", held)
    found = soak(session, [{}, {}], CheckSettings(n_runs=100))
    assert found == Soak(100, 1000, 2000, 3000)
    assert levels == [22, 72, 122]  # a fifth, and each input once, to warm up


def test_slow_runs_stop_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Slow(Counting):
        def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            now[0] += 1.0
            return super().run(feeds)

    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(runs, "anonymous_memory", lambda: 1)
    assert soak(Slow(), [{}], CheckSettings(n_runs=1000, soak_s=10.0)) == Soak(10, 1, 1, 1)
    assert now[0] < 15


def test_where_memory_is_not_told_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "anonymous_memory", lambda: Blank("not here"))
    assert soak(Counting(), [{}], QUICK) == Blank("not here")
    assert isinstance(soak(Counting(), [], QUICK), Blank)


def test_every_case_is_run_and_a_limit_that_is_too_low_is_told(tmp_path: Path) -> None:
    with Subject().open(tmp_path) as opened:
        graph = opened.graph_file("network")
        found = run_part(opened, graph, QUICK, open_session)
        assert [run.problem for run in found.cases] == [""] * 5
        assert (found.repeat, found.problems) == ("", {})
        assert found.placement == {"CPUExecutionProvider": 2}
        low = CheckSettings(n_runs=60, session=SessionOptions(memory_limit_bytes=10))
        found = run_part(opened, graph, low, open_session)
    assert found.problems["limit"].endswith("the memory limit is 10 bytes")
    assert found.options.memory_limit_bytes is None
    assert [run.problem for run in found.cases] == [""] * 5


@pytest.mark.parametrize("words", [{"n_runs": 0}, {"soak_s": 0.0}])
def test_settings_that_test_nothing_are_refused(words: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="show nothing"):
        CheckSettings(**words)  # type: ignore[arg-type]


def infinite(_feeds: Mapping[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
    if len(outputs["logits"]) == 3:
        outputs["logits"][1, 0] = np.inf  # element 4 of 12: the second of a sample of three


def one_row(_feeds: Mapping[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
    outputs["logits"] = outputs["logits"][:1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (infinite, "output 'logits' is not finite, PyTorch's answer is"),
        (one_row, "output 'logits' is [1, 4], PyTorch gave [3, 4]"),
    ],
)
@pytest.mark.parametrize("n_sampled", [None, 3])
def test_a_sample_of_an_answer_shows_what_the_whole_shows(
    tmp_path: Path, n_sampled: int | None, change: Callable[..., Any], problem: str
) -> None:
    def opened_as(one: GraphFile, options: SessionOptions) -> Wrapped:
        return Wrapped(open_session(one, options), change)

    with Subject(n_sampled=n_sampled).open(tmp_path) as opened:
        found = run_part(opened, opened.graph_file("network"), QUICK, opened_as)
    assert [run.problem for run in found.cases if run.case.sizes["batch"] == 3] == [problem] * 2
    assert [run.problem for run in found.cases if run.case.sizes["batch"] == 1] == [""] * 2
