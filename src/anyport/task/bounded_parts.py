"""The parts of a task under a memory limit: opened as `anyport.task.memory_policy` says, and never more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from anyport.errors import MemoryLimitError, SessionError, UsageError
from anyport.runtime import open_sessions
from anyport.runtime.onnxfile import weight_sizes
from anyport.task.graphs import BundleGraphs, FileGraphs
from anyport.task.memory_peak import give_back
from anyport.task.memory_policy import plan_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from anyport.bundle.reading import GraphFile
    from anyport.runtime import Session
    from anyport.runtime.onnxfile import WeightSizes
    from anyport.task.graphs import Graphs
    from anyport.task.task import TaskOptions
    from anyport.tensors import TensorSpec


class BoundedParts:
    """Parts that open when they run, as many at a time as the limit allows.

    One part runs at a time, whatever threads ask: two would need the memory of both.

    Attributes:
        plan: How they are opened now.
    """

    def __init__(
        self,
        graphs: Graphs,
        wanted: Iterable[str],
        options: TaskOptions,
        *,
        at_once: bool,
        relief: Mapping[str, str],
    ) -> None:
        if options.max_memory_bytes is None or not isinstance(graphs, BundleGraphs | FileGraphs):
            raise UsageError("the parts are open already: a memory limit is given where they are opened")
        self._options, self._relief = options, relief
        self._files = {name: graphs.graph(name, options) for name in wanted}
        sizes = {name: _sizes(file) for name, file in self._files.items()}
        self.plan = plan_memory(sizes, options.max_memory_bytes, at_once=at_once)
        self._open: dict[str, Session] = {}
        self._is_closed = False
        self._lock = RLock()
        options.memory_told(self.plan)

    def part(self, name: str) -> Session:
        """Return a part that opens when it is used."""
        return _BoundedPart(self, name)

    def session(self, name: str) -> Session:
        """Return the session of a part, open until another one is asked for that cannot be open beside it.

        Raises:
            SessionError: It does not open.
        """
        with self._lock:
            if self._is_closed:
                raise SessionError("the session is closed", where=f"part {name}")
            if name not in self._open:
                names = list(self._files) if self.plan.is_together else [name]
                self._shut()
                session = replace(
                    self._options.session,
                    memory_limit_bytes=self.plan.limit_bytes,
                    weights=self.plan.parts[name].weights,
                )
                found = open_sessions([self._files[one] for one in names], session, self._options.runtime)
                self._open = dict(zip(names, found, strict=True))
            return self._open[name]

    def run(self, name: str, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a part; where it needs more memory than its way leaves, again in the way that leaves the most.

        Raises:
            MemoryLimitError: It needs more than the limit, alone and with its weights left in their file.
            SessionError: It does not open, or fails.
        """
        with self._lock:
            while True:
                try:
                    return self.session(name).run(feeds)
                except MemoryLimitError as err:
                    self._relieve(name, err)

    def close(self) -> None:
        """Give back the memory for good; a second call does nothing."""
        with self._lock:
            self._is_closed = True
            self._shut()

    def _shut(self) -> None:
        """Close what is open, and give its memory back to the system."""
        for session in self._open.values():
            session.close()
        if self._open:
            self._open = {}
            give_back()

    def _relieve(self, name: str, err: MemoryLimitError) -> None:
        plan = self.plan.relieved(name)
        self._shut()
        if plan is None:
            what = f"the part '{name}': {err.what}"
            relief = self._relief.get(name, "give fewer or smaller inputs at a time")
            raise MemoryLimitError(what, where=err.where, do=f"raise the limit, or {relief}") from err
        self.plan = plan
        self._options.memory_told(plan)


@dataclass(frozen=True, slots=True)
class _BoundedPart:
    """A `Session` that is open only while its part is."""

    parts: BoundedParts
    name: str

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` takes."""
        return self.parts.session(self.name).inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` gives."""
        return self.parts.session(self.name).outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute every output."""
        return self.parts.run(self.name, feeds)

    def close(self) -> None:
        """Give back the memory of all parts that are open."""
        self.parts.close()


def _sizes(file: GraphFile | Path) -> WeightSizes:
    path = file if isinstance(file, Path) else file.path
    try:
        return weight_sizes(path)
    except OSError as err:
        raise SessionError(f"there is no file {path}") from err
    except ValueError as err:
        raise SessionError(f"{path.name} is no whole .onnx file: {err}", where=str(path)) from err
