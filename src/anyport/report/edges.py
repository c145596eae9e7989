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
    from anyport.runtime import Session

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


def edge_runs(bundle: Bundle, graph: GraphFile, session: Session) -> tuple[Edge, ...]:
    """Run at the edges that the proof cannot hold."""
    return (*_refusals(graph, session), *_pictures(bundle, graph))


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


def _pictures(bundle: Bundle, graph: GraphFile) -> list[Edge]:
    """Let the bundle's own task look at the smallest and at odd pictures."""
    task_name = bundle.manifest.task
    if task_name not in _PICTURE_TASKS:
        return []
    from PIL import Image

    found = []
    options = TaskOptions(graph.variant_name)
    with tempfile.TemporaryDirectory() as folder, open_task(bundle.path, options) as task:
        for width, height in _PICTURES:
            path = Path(folder) / f"{width}x{height}.png"
            Image.new("RGB", (width, height), (40, 90, 200)).save(path)
            try:
                task.answer([str(path)], {})
            except AnyportError as err:
                found.append(Edge(f"a picture of {width} x {height}", err.what))
            else:
                found.append(Edge(f"a picture of {width} x {height}", ""))
    return found
