"""Layers with a BatchNorm right behind them, which an exporter folds into their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from anyport.graph.derivations import Folded, Norm
from anyport.graph.expectations import epsilon_of, is_convolution

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.export import ExportedProgram
    from torch.fx import Node

_BIAS_PLACE: Final = 2
_STATISTICS: Final = slice(1, 5)  # of batch_norm: scale, shift, mean, variance


@dataclass(frozen=True, slots=True)
class FoldSite:
    """A layer and its BatchNorm, by the names of their tensors.

    Attributes:
        weight: Of the layer.
        bias: Of the layer; ``None`` if it has none.
        norm: The BatchNorm.
        axis: Of the weight, along which its output channels lie.
    """

    weight: str
    bias: str | None
    norm: Norm
    axis: int

    def weight_rules(self) -> tuple[Folded, ...]:
        """Return what the folded weight may be."""
        as_it_is = Folded("weight", self.weight, self.norm, self.axis)
        return (as_it_is, Folded("weight", self.weight, self.norm, self.axis, transposed=True))

    def bias_rule(self) -> Folded:
        """Return what the folded bias is."""
        return Folded("bias", self.bias, self.norm)


def fold_sites(program: ExportedProgram, names: Mapping[str, str]) -> Iterator[FoldSite]:
    """Yield the layers of a program that can be folded: all tensors are weights, none serves another layer.

    Args:
        program: Of a module.
        names: Placeholder -> name of the weight.
    """
    for node in program.graph.nodes:
        if node.op == "call_function" and "batch_norm" in str(node.target):
            site = _site(node, names)
            if site is not None:
                yield site


def _site(node: Node, names: Mapping[str, str]) -> FoldSite | None:
    layer: Any = node.args[0]
    if not isinstance(layer, torch.fx.Node) or not is_convolution(layer) or len(layer.users) > 1:
        return None
    is_transposed = "transpose" in str(layer.target)
    bias = layer.args[_BIAS_PLACE] if len(layer.args) > _BIAS_PLACE else layer.kwargs.get("bias")
    tensors: list[Any] = [layer.args[1], bias, *node.args[_STATISTICS]]
    known = [None if tensor is None else names.get(tensor.name, "") for tensor in tensors]
    weight, own_bias, scale, shift, mean, variance = known
    if "" in known or weight is None or mean is None or variance is None or len(tensors[0].users) > 1:
        return None
    return FoldSite(
        weight, own_bias, Norm(scale, shift, mean, variance, epsilon_of(node)), int(is_transposed)
    )
