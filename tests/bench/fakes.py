"""Clocks that the test moves, and sessions that cost what the test says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from anyport.bench import Candidate, ChildCommand, Contest
from anyport.bench.opening import Opening
from anyport.bench.pairing import Clock, Clocks
from anyport.errors import SessionError
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyport.bench.child import Order
    from anyport.tensors import TensorSpec

SIGNATURE = Signature(
    (tensor("x", "float32[batch, 3]"),), (tensor("y", "float32[batch, 3]"),), {"batch": dim("batch", "1..64")}
)


@dataclass
class FakeMachine:
    """Time passes only while something runs, and everyone's work costs ``slowdown`` times as much."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    slowdown: float = 1.0
    calls: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)

    def clocks(self, resolution_s: float = 0.0) -> Clocks:
        return Clocks(Clock(lambda: self.cpu_s, resolution_s), Clock(lambda: self.wall_s, 0.0))

    def work(self, name: str, cost_s: float, waits_s: float = 0.0) -> None:
        self.calls.append(name)
        self.cpu_s += cost_s * self.slowdown
        self.wall_s += cost_s * self.slowdown + waits_s

    def run(self, name: str, cost_s: float, waits_s: float = 0.0) -> Callable[[], None]:
        return lambda: self.work(name, cost_s, waits_s)

    def opening(self, module: str, order: Order, n_children: int) -> Opening:
        self.orders.append(order)
        return Opening(load_s=0.5 * n_children, peak_bytes=1000 * len(module))


@dataclass
class FakeSession:
    """Costs ``cost_s`` for each row, and refuses batches above ``max_batch``."""

    machine: FakeMachine
    name: str
    cost_s: float
    waits_s: float = 0.0
    max_batch: int = 64
    signature: Signature = SIGNATURE

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.signature.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        n_rows = next(iter(feeds.values())).shape[0]
        if n_rows > self.max_batch:
            raise SessionError(f"{n_rows} rows are too many")
        self.machine.work(self.name, self.cost_s * n_rows, self.waits_s)
        return {"y": np.zeros(1, np.float32)}

    def close(self) -> None:
        self.machine.closed.append(self.name)


def candidate(session: FakeSession) -> Candidate:
    def opens(n_threads: int) -> FakeSession:
        session.machine.opened.append(f"{session.name}/{n_threads}")
        return session

    return Candidate(session.name, opens, ChildCommand("child", {"name": session.name}), 4000)


def broken(name: str) -> Candidate:
    def opens(n_threads: int) -> FakeSession:
        raise SessionError(f"{name} does not open with {n_threads} threads")

    return Candidate(name, opens, ChildCommand("child", {}), 4000)


def contest(*candidates: Candidate, signature: Signature = SIGNATURE, **sizes: int) -> Contest:
    return Contest("network", signature, sizes or {"batch": 1}, candidates, candidates[0].name)
