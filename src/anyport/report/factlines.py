"""The line of the release list that holds what the manifest says of a graph against the file."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Final

from anyport.report.line import Checked, Judge, Line, failed, listed, passed
from anyport.task.opening import TASKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.runtime.graphfile import ModelFacts

_ONNX: Final = frozenset({"", "ai.onnx"})  # two names of the same operator set


def opset_of(model: ModelFacts) -> int:
    """Return the version of ONNX's own operator set that a file says; 0 if it says none."""
    return max((version for domain, version in model.opsets.items() if domain in _ONNX), default=0)


def operators_of(model: ModelFacts) -> Counter[str]:
    """Return operator -> number of nodes, named as in the manifest; those of branches count too."""
    return Counter(
        node.operator if node.domain in _ONNX else f"{node.domain}::{node.operator}"
        for node in model.graph.all_nodes()
    )


def parameters_of(model: ModelFacts) -> int:
    """Return the number of elements of the initializers, which the file says without its weights."""
    return sum(prod(one.shape) for one in model.graph.initializers)


def manifest_true(checked: Checked) -> Line:
    """What the manifest says of the graph is what the file says; and there is such a task."""
    entry, model = checked.graph.entry, checked.model
    operators = operators_of(model)
    pairs = (
        ("opset", entry.opset, opset_of(model)),
        ("nodes", entry.n_nodes, operators.total()),
        ("parameters", entry.n_parameters, parameters_of(model)),
    )
    wrong = [
        f"the manifest says {said} {what}, the file has {has}" for what, said, has in pairs if said != has
    ]
    wrong += _wrong_operators(entry.operators, operators)
    task = checked.bundle.manifest.task
    if task is not None and task not in TASKS:
        wrong.append(f"there is no task {task[:40]!r}: {', '.join(TASKS)}")
    if wrong:
        return failed(listed(wrong, 3), "build it again: anyport build")
    words = ", ".join(f"{what} {has}" for what, _, has in pairs)
    return passed(
        f"{words}, {len(operators)} kinds of operators, as the manifest says; task {task or 'none'}"
    )


def _wrong_operators(said: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    names = sorted(name for name in {*said, *found} if said.get(name, 0) != found.get(name, 0))
    words = [f"{name[:40]} {said.get(name, 0)}, the file has {found.get(name, 0)}" for name in names]
    return [f"the manifest says {listed(words, 2)}"] if words else []


FACT_LINES: Final[tuple[tuple[str, Judge], ...]] = (("manifest as the file", manifest_true),)
