"""What a program computes from its weights alone: an optimizer may put any of it in place of the weights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from anyport.graph.capture import quiet
from anyport.graph.tensorbits import array_of
from anyport.verify import Expected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import Node

FOLD_REL: Final = 1e-5  # a fold is a few operations in float32, in any order
_MAX_CONSTANT_ELEMENTS: Final = 1 << 28


class WeightConstants:
    """The nodes of a program that depend on weights alone, computed when asked for."""

    def __init__(self, program: ExportedProgram, tensors: Mapping[str, tuple[str, Tensor, Any]]) -> None:
        self._tensors = tensors
        self._of: dict[Node, tuple[str, ...]] = {}
        for node in program.graph.nodes:
            of = self._sources(node)
            if of is not None:
                self._of[node] = of

    def _sources(self, node: Node) -> tuple[str, ...] | None:
        if node.op == "placeholder":
            return (self._tensors[node.name][0],) if node.name in self._tensors else None
        if node.op != "call_function" or not node.all_input_nodes:
            return None
        parents = [self._of.get(parent) for parent in node.all_input_nodes]
        if any(parent is None for parent in parents):
            return None
        return tuple(dict.fromkeys(name for parent in parents if parent for name in parent))

    def of(self, node: Any) -> tuple[str, ...]:
        """The names of the weights that a node (or ``None``) was computed from."""
        return self._of.get(node, ()) if isinstance(node, torch.fx.Node) else ()

    def holds(self, node: Any) -> bool:
        """Whether a node is computed from weights alone."""
        return isinstance(node, torch.fx.Node) and node in self._of

    def value(self, node: Any) -> Any:
        """Compute a node; what is no node is returned as it is."""
        if not isinstance(node, torch.fx.Node):
            return node
        if node.op == "placeholder":
            return self._tensors[node.name][1]
        args = torch.fx.map_arg(node.args, self.value)
        kwargs = torch.fx.map_arg(node.kwargs, self.value)
        with torch.no_grad(), quiet():
            return node.target(*args, **kwargs)  # type: ignore[operator]

    def folds(self) -> Iterator[Expected]:
        """Every computed constant: a graph may hold any of them in place of the weights."""
        for node, of in self._of.items():
            shape = getattr(node.meta.get("val"), "shape", None)
            if node.op == "placeholder" or shape is None or _n_elements(shape) > _MAX_CONSTANT_ELEMENTS:
                continue
            yield Expected(
                name=f"{'+'.join(of)} -> {node.name}",
                load=partial(self._load, node),
                kind="folded",
                of=of,
                rtol=FOLD_REL,
            )

    def _load(self, node: Node) -> np.ndarray:
        return array_of(self.value(node))


def _n_elements(shape: Any) -> int:
    return int(np.prod([int(n) for n in shape], dtype=np.int64))
