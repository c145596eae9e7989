from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.errors import UsageError
from anyport.task import TASKS, TaskOptions, edit_rehearsal
from anyport.task.graphs import OpenGraphs
from anyport.task.rehearsals import (
    REHEARSALS,
    TaskAnswer,
    TaskRequest,
    WatchedGraphs,
    rehearse,
)
from anyport.tensors import TensorSpec, tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUEST = TaskRequest("one", {}, [])
PICTURE = np.zeros((1, 1, 3), np.float32)


class Counting:
    """Answers 1, 2, 3, ...."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs = (tensor("y", "float32[1]"), tensor("z", "float32[1]"))

    def __init__(self) -> None:
        self.n_runs, self.is_open = 0, True

    def run(self, _: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.n_runs += 1
        return {"z": np.float32([0]), "y": np.float32([self.n_runs])}

    def close(self) -> None:
        self.is_open = False


def graphs(session: Counting, task: str | None = "edit") -> OpenGraphs:
    return OpenGraphs(task, {"a": 1}, {"network": None}, {"network": session}, lambda name: name.encode())


def test_every_rehearsal_is_of_a_task() -> None:
    assert REHEARSALS.keys() <= TASKS.keys()


def test_first_answers_are_kept_and_sessions_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(given: Any, request: TaskRequest) -> TaskAnswer:
        assert (given.settings, given.read_bytes("b"), request) == ({"a": 1}, b"b", REQUEST)
        session = given.open("network", TaskOptions())
        assert [float(session.run({})["y"][0]) for _ in range(2)] == [n_before + 1, n_before + 2]
        session.close()
        given.close()
        return TaskAnswer(PICTURE)

    session = Counting()
    monkeypatch.setattr(edit_rehearsal, "rehearse", twice)
    for n_before in (0, 2):
        found = rehearse(graphs(session), REQUEST)
        assert {part: array.tolist() for part, array in found.between.items()} == {"network": [n_before + 1]}
    assert session.is_open


def test_a_kept_answer_is_a_copy() -> None:
    watched = WatchedGraphs(graphs(Counting()))
    found = watched.open("network", TaskOptions()).run({})
    found["y"][0] = 7
    assert watched.first["network"].tolist() == [1]


@pytest.mark.parametrize("task", ["classify", None])
def test_a_task_without_rehearsal_is_named(task: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        rehearse(graphs(Counting(), task), REQUEST)
    assert caught.value.what == f"the task '{task}' cannot be proven as a whole: known are edit"
