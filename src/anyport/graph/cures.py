"""Mistakes of the exporter that are mended in the graph; each cure is named in the manifest.

A cure never hides anything: the mended file is compared with PyTorch like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

PADDED_ROWS: Final = "attention masks use -inf, so that a fully padded row attends to nothing as in PyTorch"

_FX_NODE: Final = "pkg.torch.onnx.fx_node"
_ATTENTION: Final = "scaled_dot_product_attention"


def apply_cures(model: ir.Model) -> tuple[str, ...]:
    """Mend a freshly exported graph, whose nodes still carry torch's metadata.

    Returns:
        What was mended, one line each.
    """
    return (PADDED_ROWS,) if _mend_padded_rows(model) else ()


def _mend_padded_rows(model: ir.Model) -> bool:
    """Put -inf where the exporter masks scores with the least finite number.

    Up to opset 22 ``scaled_dot_product_attention`` becomes Softmax and a guard that turns NaN rows to zero,
    as PyTorch does; with a finite mask value a fully padded row is never NaN, and the guard never acts.
    Only masks that the exporter made are touched: a model's own finite masks mean what they say.
    """
    mended = False
    for node in model.graph.all_nodes():
        if node.op_type == "Softmax" and _is_guarded(node):
            for where in _exporters_masks(node):
                _mask_with_infinity(model, where)
                mended = True
    return mended


def _is_guarded(softmax: ir.Node) -> bool:
    return any(user.op_type == "IsNaN" for user, _ in softmax.outputs[0].uses())


def _exporters_masks(softmax: ir.Node) -> Iterator[ir.Node]:
    scores = softmax.inputs[0].producer() if softmax.inputs[0] is not None else None
    if scores is None or scores.op_type != "Add":
        return
    for value in scores.inputs:
        where = value.producer() if value is not None else None
        if where is None or where.op_type != "Where":
            continue
        if _ATTENTION in where.metadata_props.get(_FX_NODE, "") and _is_least(where.inputs[2]):
            yield where


def _is_least(value: ir.Value | None) -> bool:
    constant = ir.convenience.get_const_tensor(value) if value is not None else None
    if constant is None or constant.size != 1 or not constant.dtype.is_floating_point():
        return False
    array = constant.numpy().reshape(-1)
    return bool(array[0] == np.finfo(array.dtype).min)


def _mask_with_infinity(model: ir.Model, where: ir.Node) -> None:
    old = where.inputs[2]
    constant = ir.convenience.get_const_tensor(old) if old is not None else None
    if old is None or constant is None:
        return
    array = np.full(tuple(constant.shape.numpy()), -np.inf, dtype=constant.numpy().dtype)
    name = f"{old.name}_inf"
    if name not in model.graph.initializers:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        model.graph.register_initializer(value)
    where.replace_input_with(2, model.graph.initializers[name])
