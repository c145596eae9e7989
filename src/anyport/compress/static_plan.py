"""Which nodes of a graph compute in INT8 when ranges are known, and which values need a range.

* ``Conv``, ``Gemm`` and ``MatMul`` with a weight do. A ``Conv`` whose result is an output of the model does
  not: 255 steps would be all that is left of it.
* What only combines or moves their results (``Add``, ``Concat``, ``MaxPool``, …) does where everything it
  reads is INT8 and something INT8 reads it. So a residual sum between normalizations, whose outliers ruin a
  range, stays float, and so does the tail of a detector, which joins coordinates and probabilities.
* ``Relu`` and ``Clip`` behind one of these are part of it: its range begins where they end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyport.compress.embeddings import tables
from anyport.compress.rewrite import HEAVY, is_small

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from anyport.compress.rewrite import Rewrite

WEIGHTED: Final = frozenset({"Conv", "Gemm", "MatMul"})
_COMBINING: Final = frozenset(
    {"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"}
)
_MOVING: Final = frozenset({"Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_BOUNDING: Final = frozenset({"Clip", "Relu"})
_BIAS: Final = 2
_FIRST: Final = "its weight is the first operand"
_MATRIX_AXES: Final = 2


@dataclass(frozen=True, slots=True)
class StaticPlan:
    """What becomes INT8.

    Attributes:
        weighted: Nodes with a weight.
        following: Nodes that combine or move INT8 values.
        ends: Node -> the value that its result is after a ``Relu`` or ``Clip``, where there is one.
        shared: Value -> the value whose range it has: one that is only moved has that of its source.
        ranged: The values that need a range, in the order of the graph.
    """

    weighted: tuple[ir.Node, ...]
    following: tuple[ir.Node, ...]
    ends: Mapping[ir.Node, ir.Value]
    shared: Mapping[ir.Value, ir.Value]
    ranged: tuple[ir.Value, ...]

    def range_of(self, value: ir.Value) -> ir.Value:
        """Return the value whose range this one has."""
        while value in self.shared:
            value = self.shared[value]
        return value


def plan_static(rewrite: Rewrite) -> StaticPlan:
    """Plan; what has weights and stays float is noted with the reason."""
    weighted = _weighted(rewrite)
    following = _following(rewrite, frozenset(weighted))
    ends = {node: _end(node) for node in (*weighted, *following)}
    shared = {node.outputs[0]: _moved(node) for node in following if node.op_type in _MOVING}
    plan = StaticPlan(tuple(weighted), tuple(following), ends, shared, ())
    wanted = [value for node in rewrite.graph if node in ends for value in quantized_values(plan, node)]
    ranged = tuple(dict.fromkeys(plan.range_of(value) for value in wanted))
    return StaticPlan(plan.weighted, plan.following, ends, shared, ranged)


def _weighted(rewrite: Rewrite) -> list[ir.Node]:
    heavy = [node for node in rewrite.graph if node.op_type in HEAVY - {"Gather"} and not node.domain]
    reasons = {node: _obstacle(rewrite, node) for node in heavy} | tables(rewrite)
    able = {node for node, reason in reasons.items() if not reason}
    tied = {node: rewrite.tie(node.inputs[1], able) for node in heavy if node in able}
    weighted = []
    for node in heavy:
        reason = reasons[node] or tied[node]
        if reason:
            rewrite.keep(node, reason)
        else:
            weighted.append(node)
    return weighted


def quantized_values(plan: StaticPlan, node: ir.Node) -> tuple[ir.Value, ...]:
    """Return the values around an INT8 node that are INT8: what it reads, and what it computes.

    The result of a ``Gemm`` or ``MatMul`` stays float unless something INT8 reads it.
    """
    reads = activations(node)
    return reads if node.op_type in {"Gemm", "MatMul"} else (*reads, plan.ends[node])


def activations(node: ir.Node) -> tuple[ir.Value, ...]:
    """Return what an INT8 node reads beside weights and shapes."""
    n_read = len(node.inputs) if node.op_type in {"Add", "Concat", "Mul"} else 1
    return tuple(value for value in node.inputs[:n_read] if value is not None)


def _moved(node: ir.Node) -> ir.Value:
    return activations(node)[0]


def _obstacle(rewrite: Rewrite, node: ir.Node) -> str:
    """Return why a node with a weight stays float; empty if nothing is in the way."""
    if node.op_type not in WEIGHTED:
        return "static INT8 has no kernel for it"
    tensor = rewrite.weight(node.inputs[1])
    if tensor is None:
        return "no operand is a float32 weight" if rewrite.weight(node.inputs[0]) is None else _FIRST
    if is_small(tensor):
        return "its weight is smaller than 1 KiB"
    bias = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
    if bias is not None and rewrite.weight(bias) is None:
        return "its bias is computed"
    if node.op_type == "Conv":
        return "its result is an output of the model" if _end(node).is_graph_output() else ""
    return _matrix_obstacle(node, tensor) or _bias_obstacle(bias)


def _bias_obstacle(bias: ir.Value | None) -> str:
    """Return what is wrong with the bias of a ``Gemm``: INT8 takes one number for each column."""
    if bias is None or bias.const_value is None:
        return ""
    *rows, _ = [1, *bias.const_value.shape.numpy()]
    return "" if all(n == 1 for n in rows) else "its bias has several rows"


def _matrix_obstacle(node: ir.Node, tensor: ir.TensorProtocol) -> str:
    words = {name: attribute.value for name, attribute in node.attributes.items()}
    if len(tensor.shape) != _MATRIX_AXES:
        return f"its weight has {len(tensor.shape)} axes"
    if words.get("transA", 0) or words.get("alpha", 1.0) != 1.0 or words.get("beta", 1.0) != 1.0:
        return "it is a Gemm with factors, or of a transposed activation"
    return ""


def _following(rewrite: Rewrite, weighted: frozenset[ir.Node]) -> list[ir.Node]:
    """Return the nodes that combine or move: all that might, less those of which it turns out not to hold."""
    found = [node for node in rewrite.graph if _may_follow(node)]
    while True:
        int8 = weighted | set(found)
        kept = [node for node in found if _reads_int8(node, int8) and _is_read(node, int8)]
        if len(kept) == len(found):
            return kept
        found = kept


def _may_follow(node: ir.Node) -> bool:
    is_known = node.op_type in _COMBINING or node.op_type in _MOVING
    return not node.domain and is_known and len(node.outputs) == 1


def _reads_int8(node: ir.Node, int8: frozenset[ir.Node] | set[ir.Node]) -> bool:
    makers = [_maker(value) for value in activations(node)]
    return all(
        maker in int8 and maker.op_type not in {"Gemm", "MatMul"} for maker in makers if maker
    ) and all(makers)


def _maker(value: ir.Value) -> ir.Node | None:
    """Return the node that computed a value, before ``Relu`` and ``Clip``."""
    node = value.producer()
    if node is not None and node.op_type in _BOUNDING and node.inputs[0] is not None:
        before = node.inputs[0].producer()
        if before is not None and _end(before) is value:
            return before
    return node


def _is_read(node: ir.Node, int8: frozenset[ir.Node] | set[ir.Node]) -> bool:
    return any(
        reader in int8 for reader, place in _end(node).uses() if reader.inputs[place] in activations(reader)
    )


def _end(node: ir.Node) -> ir.Value:
    """Return the result of a node; where a ``Relu`` or ``Clip`` alone reads it, the result of that."""
    value = node.outputs[0]
    readers = [reader for reader, _ in value.uses()]
    if value.is_graph_output() or len(readers) != 1 or node.op_type in _MOVING:
        return value
    reader = readers[0]
    is_bound = reader.op_type in _BOUNDING and not reader.domain and reader.inputs[0] is value
    return reader.outputs[0] if is_bound else value
