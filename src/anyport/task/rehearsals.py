"""A whole task that is run for a proof: requests in, the answer and what the parts said on the way out."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from anyport.runtime import Session
    from anyport.task.graphs import Graphs
    from anyport.task.task import TaskOptions
    from anyport.tensors import TensorSpec


@dataclass(frozen=True, slots=True, eq=False)
class TaskRequest:
    """What a task is asked.

    Attributes:
        name: Of the case.
        words: Texts and numbers; each task knows its own.
        pictures: uint8[height, width, 3].
        arrays: float32, such as the noise to begin with.
    """

    name: str
    words: Mapping[str, str | int | float]
    pictures: Sequence[np.ndarray]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class TaskAnswer:
    """What came out.

    Attributes:
        picture: float32[height, width, 3] from 0 to 1.
        between: Part -> what it answered when it was run for the first time: its first output.
    """

    picture: np.ndarray
    between: Mapping[str, np.ndarray] = field(default_factory=dict)


class _Module(Protocol):
    def rehearse(self, graphs: Graphs, request: TaskRequest) -> TaskAnswer:
        """Run the task on sessions that are open, computing everything anew."""


REHEARSALS: Final[Mapping[str, str]] = {  # task -> module of this room
    "edit": "anyport.task.edit_rehearsal",
}


def rehearse(graphs: Graphs, request: TaskRequest) -> TaskAnswer:
    """Let the task that graphs are made for answer a request.

    Args:
        graphs: Stay open.
        request: As a proof has it.

    Raises:
        InputError: The request does not fit the task.
        SessionError: The runtime failed, or its numbers are not finite.
        UsageError: The task offers no rehearsal, or its words are unknown.
    """
    module = REHEARSALS.get(graphs.task or "")
    if module is None:
        raise UsageError(
            f"the task '{graphs.task}' cannot be proven as a whole: known are {', '.join(REHEARSALS)}"
        )
    watched = WatchedGraphs(graphs)
    found = cast("_Module", import_module(module)).rehearse(watched, request)
    return TaskAnswer(found.picture, watched.first)


class WatchedGraphs:
    """Graphs whose first answers are kept, and which a task does not close.

    Attributes:
        first: Part -> the first output of its first run.
    """

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self.path, self.task, self.settings, self.parts = (
            graphs.path,
            graphs.task,
            graphs.settings,
            graphs.parts,
        )
        self.first: dict[str, np.ndarray] = {}

    def open(self, part: str, options: TaskOptions) -> Session:
        """Return the session of a part, watched."""
        return _Watched(part, self._graphs.open(part, options), self.first)

    def read_bytes(self, relative: str) -> bytes:
        """Return the content of a file."""
        return self._graphs.read_bytes(relative)

    def close(self) -> None:
        """Do nothing: whoever opened the graphs closes them."""


class _Watched:
    def __init__(self, part: str, session: Session, first: dict[str, np.ndarray]) -> None:
        self._part, self._session, self._first = part, session, first

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._session.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self._session.run(feeds)
        if self._part not in self._first:
            self._first[self._part] = found[self._session.outputs[0].name].copy()
        return found

    def close(self) -> None:
        """Do nothing."""
