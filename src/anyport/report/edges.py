"""Runs at the edges of what a part takes: sizes that it must refuse, the smallest and odd pictures."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyport.bench.inputs import bench_case
from anyport.errors import AnyportError, InputError
from anyport.task import TaskOptions, open_task
from anyport.tensors import Signature

if TYPE_CHECKING:
    from anyport.bundle import Bundle, GraphFile
    from anyport.cases import Case
    from anyport.runtime import Session, SessionOptions
    from anyport.task import Task

_PICTURES: Final = ((1, 1), (37, 53), (1, 500))  # width, height: the least, no multiple of anything, a line
_PICTURE_TASKS: Final = frozenset({"classify"})


@dataclass(frozen=True, slots=True)
class Edge:
    """One run at an edge.

    Attributes:
        name: Such as ``a picture of 1 x 1`` or ``height=65 is refused``.
        problem: What went wrong; empty if nothing did.
    """

    name: str
    problem: str


def edge_runs(
    bundle: Bundle, graph: GraphFile, session: Session, options: SessionOptions
) -> tuple[Edge, ...]:
    """Run at the edges that the proof cannot hold.

    Args:
        bundle: Its task is opened for pictures.
        graph: Of one part.
        session: It, opened.
        options: How; the task's sessions are opened so too.
    """
    return (*_refusals(graph, session), *_pictures(bundle, TaskOptions(graph.variant_name, session=options)))


def _refusals(graph: GraphFile, session: Session) -> list[Edge]:
    """Give sizes between the steps of an axis, which must be refused in words, not computed."""
    dims = graph.part.dim_ranges()
    found = []
    for name, spread in dims.items():
        if spread.step > 1:
            sizes = {other: each.low for other, each in dims.items()} | {name: spread.low + 1}
            found.append(Edge(f"{name}={sizes[name]} is refused", _unrefused(graph, session, sizes)))
    return found


def _unrefused(graph: GraphFile, session: Session, sizes: dict[str, int]) -> str:
    case = _case(graph, sizes)
    try:
        session.run(case.arrays(graph.part.input_specs()))
    except InputError:
        return ""
    except AnyportError as err:
        return f"it broke: {err.what}"
    return "it was computed"


def _case(graph: GraphFile, sizes: dict[str, int]) -> Case:
    return bench_case(Signature(graph.part.input_specs(), graph.part.output_specs()), sizes)


def _pictures(bundle: Bundle, options: TaskOptions) -> list[Edge]:
    """Let the bundle's own task look at the smallest and at odd pictures."""
    task_name = bundle.manifest.task
    if task_name not in _PICTURE_TASKS:
        return []
    try:
        task = open_task(bundle.path, options)
    except AnyportError as err:
        return [Edge(f"the task '{task_name}' opens", err.what)]
    with task:
        return [Edge(f"a picture of {w} x {h}", _unanswered(task, w, h)) for w, h in _PICTURES]


def _unanswered(task: Task, width: int, height: int) -> str:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{width}x{height}.png"
        Image.new("RGB", (width, height), (40, 90, 200)).save(path)
        try:
            task.answer([str(path)], {})
        except AnyportError as err:
            return err.what
    return ""
