"""INT8 with known ranges: ``QuantizeLinear`` and ``DequantizeLinear`` around what computes in 8 bits.

Every runtime that knows INT8 knows this form; ONNX Runtime turns each group into one integer operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from anyport.compress.embeddings import quantize_tables
from anyport.compress.static_plan import activations, plan_static
from anyport.compress.weights import quantized, weight_form, weight_scales

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from anyport.compress.methods import Int8Static
    from anyport.compress.ranges import Range
    from anyport.compress.rewrite import Rewrite
    from anyport.compress.static_plan import StaticPlan
    from anyport.compress.weights import WeightForm

_LEVELS: Final = 255
_BIAS: Final = 2
_MAX_BIAS: Final = 2**30  # of the numbers of a bias: sums of products have room beside it
_TYPES: Final = {"s8": np.dtype(np.int8), "u8": np.dtype(np.uint8)}


@dataclass(frozen=True, slots=True)
class Step:
    """How an activation is quantized: ``number = round(value / scale) + zero``.

    Attributes:
        scale: The value of one step.
        zero: The number that stands for 0.
    """

    scale: np.float32
    zero: np.ndarray


def activation_step(found: Range, dtype: np.dtype[Any]) -> Step:
    """Return the step that divides a range, widened to hold 0, into 255.

    >>> from anyport.compress.ranges import Range
    >>> step = activation_step(Range(0.0, 2.55), np.dtype(np.uint8))
    >>> float(step.scale).__round__(6), int(step.zero)
    (0.01, 0)
    """
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    width = high - low
    scale = np.float32(width / _LEVELS) if width > np.finfo(np.float32).tiny * _LEVELS else np.float32(1.0)
    zero = round(-low / float(scale)) + int(np.iinfo(dtype).min)
    return Step(scale, np.array(min(max(zero, np.iinfo(dtype).min), np.iinfo(dtype).max), dtype))


def rewrite_static(rewrite: Rewrite, method: Int8Static, ranges: Mapping[str, Range]) -> None:
    """Quantize what `plan_static` finds, and the tables.

    Args:
        rewrite: The graph.
        method: The flavour.
        ranges: Value name -> range, of all that `ranged_values` names.
    """
    work = _Work(rewrite, plan_static(rewrite), method, ranges)
    for node in (*work.plan.weighted, *work.plan.following):
        for value in activations(node):
            work.pair(value)
        if node.op_type not in {"Gemm", "MatMul"}:
            work.pair(work.plan.ends[node])
    work.quantize_weights()
    work.reconnect()
    quantize_tables(rewrite)


def ranged_values(rewrite: Rewrite) -> tuple[str, ...]:
    """Return the names of the values that need a range, in the order of the graph."""
    return tuple(str(value.name) for value in plan_static(rewrite).ranged)


class _Work:
    def __init__(
        self, rewrite: Rewrite, plan: StaticPlan, method: Int8Static, ranges: Mapping[str, Range]
    ) -> None:
        self.plan = plan
        self._rewrite = rewrite
        self._form: WeightForm = weight_form(method)
        dtype = _TYPES[method.activation]
        self._steps = {v: activation_step(ranges[str(v.name)], dtype) for v in plan.ranged}
        self._pairs: dict[ir.Value, ir.Value] = {}
        self._quantizers: set[ir.Node] = set()

    def step(self, value: ir.Value) -> Step:
        return self._steps[self.plan.range_of(value)]

    def pair(self, value: ir.Value) -> None:
        """Put ``QuantizeLinear`` and ``DequantizeLinear`` behind a value, once."""
        if value in self._pairs:
            return
        rewrite, step, name = self._rewrite, self.step(value), str(value.name)
        scale = rewrite.constant(f"{name}_scale", np.array(step.scale, np.float32))
        zero = rewrite.constant(f"{name}_zero_point", step.zero)
        first = rewrite.node("QuantizeLinear", [value, scale, zero], [f"{name}_quantized"])
        second = rewrite.node("DequantizeLinear", [first.outputs[0], scale, zero], [f"{name}_dequantized"])
        producer = value.producer()
        if producer is None:
            rewrite.graph.insert_before(rewrite.graph[0], [first, second])
        else:
            rewrite.graph.insert_after(producer, [first, second])
        self._pairs[value] = second.outputs[0]
        self._quantizers.add(first)

    def reconnect(self) -> None:
        """Let what computes in INT8 read the quantized values.

        The result of an INT8 operator exists in 8 bits only, so that everyone reads it there; a float value
        that is quantized for an INT8 operator stays as it is for all others.
        """
        int8 = {*self.plan.weighted, *self.plan.following}
        results = {self.plan.ends[n] for n in int8 if n.op_type not in {"Gemm", "MatMul"}}
        for value, quantized_value in self._pairs.items():
            for node, place in list(value.uses()):
                if node not in self._quantizers and (value in results or node in int8):
                    node.replace_input_with(place, quantized_value)

    def quantize_weights(self) -> None:
        """Store the weights as integers, each once, and every bias in steps of both scales."""
        readers: dict[tuple[str, int], list[ir.Node]] = {}
        for node in self.plan.weighted:
            readers.setdefault((str(node.inputs[1].name), _axis(node)), []).append(node)  # type: ignore[union-attr]
        for (name, axis), nodes in readers.items():
            tensor = self._rewrite.weight(nodes[0].inputs[1])
            if tensor is None:
                continue
            scales = weight_scales(tensor.numpy(), axis, self._form)
            for node in nodes:
                scales = self._fitting_bias(node, scales)
            key = ("weight", name, axis)
            stored = self._rewrite.once(key, partial(self._stored, tensor, (name, axis), scales))
            for node in nodes:
                self._quantize_bias(node, scales)
                node.replace_input_with(1, self._dequantized(node, name, stored, axis))

    def _fitting_bias(self, node: ir.Node, scales: np.ndarray) -> np.ndarray:
        """A bias is a whole number of steps: a channel of tiny weights gets larger ones."""
        bias = _bias(node)
        if bias is None:
            return scales
        least = np.abs(_row(node, bias)).astype(np.float64) / (self._in_scale(node) * _MAX_BIAS)
        fitting: np.ndarray = np.maximum(scales, least if scales.ndim else least.max()).astype(np.float32)
        return fitting

    def _in_scale(self, node: ir.Node) -> float:
        return float(self.step(activations(node)[0]).scale)

    def _stored(
        self, tensor: ir.TensorProtocol, place: tuple[str, int], scales: np.ndarray
    ) -> tuple[ir.Value, ...]:
        name, axis = place
        make = partial(_numbers, tensor, scales, axis, self._form)
        shape = tuple(int(n) for n in tensor.shape.numpy())
        numbers = self._rewrite.late(f"{name}_quantized", (self._form.dtype, shape), make)
        zeros = np.full(scales.shape, self._form.offset, self._form.dtype.numpy())
        return (numbers, *self._constants(name, scales, zeros))

    def _quantize_bias(self, node: ir.Node, scales: np.ndarray) -> None:
        bias = _bias(node)
        if bias is None:
            return
        name = str(node.inputs[_BIAS].name)  # type: ignore[union-attr]
        steps = (scales * np.float32(self._in_scale(node))).astype(np.float32)
        numbers = np.rint(_row(node, bias).astype(np.float64) / steps).astype(np.int32)
        stored = self._rewrite.constant(f"{name}_quantized", numbers)
        constants = self._constants(name, steps, np.zeros(steps.shape, np.int32))
        node.replace_input_with(_BIAS, self._dequantized(node, name, (stored, *constants), 0))

    def _constants(self, name: str, scales: np.ndarray, zeros: np.ndarray) -> tuple[ir.Value, ir.Value]:
        rewrite = self._rewrite
        return rewrite.constant(f"{name}_scale", scales), rewrite.constant(f"{name}_zero_point", zeros)

    def _dequantized(self, node: ir.Node, name: str, stored: tuple[ir.Value, ...], axis: int) -> ir.Value:
        """Give a reader its own ``DequantizeLinear``: runtimes fuse one that a single node reads."""
        rank = len(stored[1].shape or ())
        words = {"axis": axis} if rank else None
        made = self._rewrite.node("DequantizeLinear", stored, [f"{name}_dequantized"], words)
        return self._rewrite.insert(node, made)


def _axis(node: ir.Node) -> int:
    """Return the axis of a weight along which the results lie."""
    is_transposed = "transB" in node.attributes and node.attributes["transB"].as_int() == 1
    return 0 if node.op_type == "Conv" or is_transposed else 1


def _bias(node: ir.Node) -> ir.TensorProtocol | None:
    bias = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
    return None if bias is None else bias.const_value


def _row(node: ir.Node, bias: ir.TensorProtocol) -> np.ndarray:
    """Return a bias with one number for each result; a ``Gemm`` may have it as [1, n], or as a single one."""
    n_results = node.inputs[1].const_value.shape.numpy()[_axis(node)]  # type: ignore[union-attr]
    return np.broadcast_to(bias.numpy().reshape(-1), (n_results,))


def _numbers(tensor: ir.TensorProtocol, scales: np.ndarray, axis: int, form: WeightForm) -> np.ndarray:
    return quantized(tensor.numpy(), scales, axis, form)
