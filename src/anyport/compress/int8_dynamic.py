"""INT8 weights and activations quantized as they come: ``MatMul`` and ``Gemm`` with a weight.

The pattern is the one that ONNX Runtime fuses into a single operator::

    x, scale, zero = DynamicQuantizeLinear(activation)
    y = Cast(MatMulInteger(x, weight, zero)) * (scale * weight_scales)

``Gemm`` is taken apart into a product and a sum: quantizers of ``MatMul`` pass over it without a word.
Convolutions stay: with ConvInteger a ResNet-50 is 6.6 times slower than in float.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from anyport.compress.embeddings import quantize_tables, tables
from anyport.compress.rewrite import HEAVY, is_small
from anyport.compress.weights import quantized, weight_form, weight_scales

if TYPE_CHECKING:
    from anyport.compress.methods import Int8Dynamic
    from anyport.compress.rewrite import Rewrite
    from anyport.compress.weights import WeightForm

_WEIGHT_AXES: Final = 2
_BIAS: Final = 2  # its place among the inputs of Gemm
_REASONS: Final = {
    "Conv": "dynamic INT8 has no fast kernel for it",
    "ConvTranspose": "dynamic INT8 has no kernel for it",
    "GRU": "dynamic INT8 is not made for it",
    "LSTM": "dynamic INT8 is not made for it",
    "RNN": "dynamic INT8 is not made for it",
}


@dataclass(frozen=True, slots=True)
class _Product:
    """What a node multiplies: an activation, and a weight that may be stored transposed."""

    activation: ir.Value
    weight: ir.Value
    tensor: ir.TensorProtocol
    transposed: bool
    bias: ir.Value | None


def rewrite_dynamic(rewrite: Rewrite, method: Int8Dynamic) -> None:
    """Quantize every product with a weight, and the tables."""
    form = weight_form(method)
    seen: dict[ir.Value, tuple[ir.Value, ...]] = {}
    for node, found in _plan(rewrite, method).items():
        if isinstance(found, str):
            rewrite.keep(node, found)
        else:
            _quantize(rewrite, node, found, form, seen)
    if method.embeddings:
        quantize_tables(rewrite)


def _plan(rewrite: Rewrite, method: Int8Dynamic) -> dict[ir.Node, _Product | str]:
    """Return what each heavy node multiplies, or why it stays float; ``Gather`` aside."""
    heavy = [node for node in rewrite.graph if node.op_type in HEAVY - {"Gather"} and not node.domain]
    found = {node: _REASONS.get(node.op_type) or _product(rewrite, node) for node in heavy}
    able = {node for node, one in found.items() if isinstance(one, _Product)}
    if method.embeddings:
        able |= {node for node, reason in tables(rewrite).items() if not reason}
    tied = {node: rewrite.tie(node.inputs[1], able) for node in heavy if node in able}
    return {node: tied.get(node) or one for node, one in found.items()}


def _product(rewrite: Rewrite, node: ir.Node) -> _Product | str:
    """Return what a node multiplies, or why it stays float."""
    activation, weight = node.inputs[0], node.inputs[1]
    tensor = rewrite.weight(weight)
    if tensor is None or activation is None or weight is None:
        is_first = rewrite.weight(activation) is not None
        return "its weight is the first operand" if is_first else "no operand is a float32 weight"
    if len(tensor.shape) != _WEIGHT_AXES:
        return f"its weight has {len(tensor.shape)} axes"
    if is_small(tensor):
        return "its weight is smaller than 1 KiB"
    words = {name: attribute.value for name, attribute in node.attributes.items()}
    if words.get("transA", 0) or words.get("alpha", 1.0) != 1.0 or words.get("beta", 1.0) != 1.0:
        return "it is a Gemm with factors, or of a transposed activation"
    bias = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
    return _Product(activation, weight, tensor, bool(words.get("transB", 0)), bias)


def _quantize(
    rewrite: Rewrite,
    node: ir.Node,
    found: _Product,
    form: WeightForm,
    seen: dict[ir.Value, tuple[ir.Value, ...]],
) -> None:
    if found.activation not in seen:
        seen[found.activation] = _quantized_activation(rewrite, node, found.activation)
    numbers, scale, zero = seen[found.activation]
    key = ("matrix", str(found.weight.name), found.transposed)
    stored = rewrite.once(key, partial(_quantized_weight, rewrite, found, form))
    weight, weight_scale, weight_zero = stored
    out = str(node.outputs[0].name)
    product = rewrite.node("MatMulInteger", [numbers, weight, zero, weight_zero], [f"{out}_integers"])
    whole = rewrite.insert(node, product)
    floats = rewrite.insert(
        node, rewrite.node("Cast", [whole], [f"{out}_cast"], {"to": int(ir.DataType.FLOAT)})
    )
    scales = rewrite.insert(node, rewrite.node("Mul", [scale, weight_scale], [f"{out}_scale"]))
    last = rewrite.insert(node, rewrite.node("Mul", [floats, scales], [f"{out}_scaled"]))
    if found.bias is not None:
        last = rewrite.insert(node, rewrite.node("Add", [last, found.bias], [f"{out}_sum"]))
    rewrite.replace(node, last)


def _quantized_activation(rewrite: Rewrite, node: ir.Node, activation: ir.Value) -> tuple[ir.Value, ...]:
    """Quantize an activation once for all that multiply it: the first of them comes first in the graph."""
    names = [f"{activation.name}_{word}" for word in ("quantized", "scale", "zero_point")]
    made = rewrite.node("DynamicQuantizeLinear", [activation], names)
    rewrite.insert(node, made)
    return tuple(made.outputs)


def _quantized_weight(rewrite: Rewrite, found: _Product, form: WeightForm) -> tuple[ir.Value, ...]:
    name = str(found.weight.name)
    scales = weight_scales(_matrix(found), 1, form)
    n_rows, n_columns = (int(n) for n in found.tensor.shape.numpy())
    shape = (n_columns, n_rows) if found.transposed else (n_rows, n_columns)
    numbers = rewrite.late(f"{name}_quantized", (form.dtype, shape), partial(_numbers, found, scales, form))
    zeros = np.full(scales.shape, form.offset, np.int8 if form.dtype == ir.DataType.INT8 else np.uint8)
    return (numbers, rewrite.constant(f"{name}_scale", scales), rewrite.constant(f"{name}_zero_point", zeros))


def _numbers(found: _Product, scales: np.ndarray, form: WeightForm) -> np.ndarray:
    return quantized(_matrix(found), scales, 1, form)


def _matrix(found: _Product) -> np.ndarray:
    """Return the weight as float32[from, to]."""
    array: np.ndarray = found.tensor.numpy()
    return array.T if found.transposed else array
