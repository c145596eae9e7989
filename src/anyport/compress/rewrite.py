"""Changing a graph node by node, with a note of everything that stays float."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from anyport.graph.storing import SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

HEAVY: Final = frozenset({"Conv", "ConvTranspose", "GRU", "Gather", "Gemm", "LSTM", "MatMul", "RNN"})
"""Operators that hold weights: those of them that stay float are listed with the reason."""


@dataclass(frozen=True, slots=True)
class KeptFloat:
    """A node that holds weights and stayed float.

    Attributes:
        node: Its name, or that of the value it computes.
        operator: Such as ``MatMul``.
        reason: Why.
    """

    node: str
    operator: str
    reason: str


def kept_line(kept: Iterable[KeptFloat]) -> str:
    """Return the reasons, the most frequent first: ``24 MatMul: both operands are computed; …``."""
    counted = Counter((entry.operator, entry.reason) for entry in kept)
    return "; ".join(f"{n} {operator}: {reason}" for (operator, reason), n in counted.most_common())


class Rewrite:
    """A graph that is being changed.

    Args:
        model: It is changed in place.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.graph = model.graph
        self.kept: list[KeptFloat] = []
        self.n_changed = 0
        self._stored: dict[tuple[object, ...], tuple[ir.Value, ...]] = {}
        self._names = {str(v.name) for node in model.graph.all_nodes() for v in node.outputs}
        self._names |= set(model.graph.initializers) | {str(v.name) for v in model.graph.inputs}

    def keep(self, node: ir.Node, reason: str) -> None:
        """Note why a node stays float."""
        self.kept.append(KeptFloat(node_name(node), node.op_type, reason))

    def keep_inner_nodes(self) -> None:
        """Note the nodes with weights in branches and loops, which are left alone."""
        for node in self.graph.all_nodes():
            if node.graph is not self.graph and node.op_type in HEAVY:
                self.keep(node, "it is inside a branch or a loop")

    def weight(self, value: ir.Value | None) -> ir.TensorProtocol | None:
        """Return the tensor of a float32 initializer that no caller may override; else ``None``."""
        if value is None or value.name not in self.graph.initializers or value.is_graph_input():
            return None
        tensor = value.const_value
        return tensor if tensor is not None and tensor.dtype == ir.DataType.FLOAT else None

    def once(self, key: tuple[object, ...], make: Callable[[], tuple[ir.Value, ...]]) -> tuple[ir.Value, ...]:
        """Store a weight in a form, or return what was stored of it in that form before."""
        if key not in self._stored:
            self._stored[key] = make()
            self.n_changed += 1
        return self._stored[key]

    def tie(self, value: ir.Value | None, readers: Collection[ir.Node]) -> str:
        """Return why a weight stays float although these nodes could read it in 8 bits; empty if it need not.

        One that is read as float by somebody would be stored twice.
        """
        if value is None:
            return ""
        others = [
            node
            for node, place in value.uses()
            if node not in readers or place != (0 if node.op_type == "Gather" else 1)
        ]
        if value.is_graph_output():
            return "its weight is an output of the model"
        return f"a {others[0].op_type} reads the same weight as float" if others else ""

    def fresh(self, wanted: str) -> str:
        """Return a name that nothing has yet."""
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Add a small initializer."""
        name = self.fresh(name)
        return self._register(name, ir.Tensor(np.array(array, order="C"), name=name))

    def late(
        self, name: str, form: tuple[ir.DataType, tuple[int, ...]], make: Callable[[], np.ndarray]
    ) -> ir.Value:
        """Add an initializer of this type and shape whose numbers are computed when they are written."""
        name, (dtype, shape) = self.fresh(name), form
        tensor = ir.LazyTensor(lambda: ir.Tensor(make(), dtype=dtype), dtype, ir.Shape(shape), name=name)
        return self._register(name, tensor)

    def _register(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(
            name=name,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def insert(self, before: ir.Node, node: ir.Node) -> ir.Value:
        """Put a node in front of another; return what it computes first."""
        before.prepend(node)
        return node.outputs[0]

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        outputs: Sequence[str],
        words: Mapping[str, int] | None = None,
    ) -> ir.Node:
        """Make a node of the default domain; its outputs get names that nothing has yet.

        Args:
            operator: Such as ``MatMulInteger``.
            inputs: Values of the graph.
            outputs: Wanted names.
            words: Attributes.
        """
        values = [ir.Value(name=self.fresh(name)) for name in outputs]
        return ir.node(
            operator, inputs, words, outputs=values, name=self.fresh(f"{values[0].name}_{operator}")
        )

    def replace(self, node: ir.Node, new: ir.Value) -> None:
        """Take a node of one output out; what read it reads a new value, which gets its name."""
        old = node.outputs[0]
        name = str(old.name)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        new.name = name
        new.shape, new.type = old.shape, old.type

    def drop_unread(self) -> None:
        """Remove initializers that nothing reads any more: tools that leave them make files larger."""
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del self.graph.initializers[name]


def node_name(node: ir.Node) -> str:
    """Return the name of a node, or of the value that it computes."""
    return node.name or str(node.outputs[0].name)


def is_small(tensor: ir.TensorProtocol) -> bool:
    """Say whether a weight is so small that its scales would cost more than its 8 bits save."""
    return tensor.nbytes < SMALL_BYTES
