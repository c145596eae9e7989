"""Tables that are read row by row, in 8 bits: the rows that are read are multiplied by their scales."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from anyport.compress.rewrite import is_small
from anyport.compress.weights import WeightForm, quantized, weight_scales

if TYPE_CHECKING:
    import numpy as np

    from anyport.compress.rewrite import Rewrite

_FORM: Final = WeightForm(ir.DataType.INT8, 127, 0, per_channel=True)
_TABLE_AXES: Final = 2


def quantize_tables(rewrite: Rewrite) -> None:
    """Store the float tables of ``Gather`` as INT8, one scale for each row.

    ``Gather(table, ids)`` becomes ``Cast(Gather(numbers, ids)) * Gather(scales, ids)``: operators that every
    runtime has, and only the rows that are read are ever float.
    """
    found = tables(rewrite)
    for node, obstacle in found.items():
        reason = obstacle or rewrite.tie(node.inputs[0], [one for one, why in found.items() if not why])
        table = rewrite.weight(node.inputs[0])
        if reason or table is None:
            rewrite.keep(node, reason)
        else:
            _quantize_table(rewrite, node, table)


def tables(rewrite: Rewrite) -> dict[ir.Node, str]:
    """Return each ``Gather`` of a float weight, and why that stays float; empty if nothing is in the way."""
    found = {}
    for node in [node for node in rewrite.graph if node.op_type == "Gather" and not node.domain]:
        table = rewrite.weight(node.inputs[0])
        if table is not None:  # others have no table: indices into something that is computed
            found[node] = _obstacle(node, table)
    return found


def _obstacle(node: ir.Node, table: ir.TensorProtocol) -> str:
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    if len(table.shape) != _TABLE_AXES or axis != 0:
        return f"it reads along axis {axis} of {len(table.shape)}"
    return "its table is smaller than 1 KiB" if is_small(table) else ""


def _quantize_table(rewrite: Rewrite, node: ir.Node, table: ir.TensorProtocol) -> None:
    name, ids = str(node.inputs[0].name), node.inputs[1]  # type: ignore[union-attr]
    numbers, column = rewrite.once(("table", name), partial(_stored, rewrite, name, table))
    out = str(node.outputs[0].name)
    rows = rewrite.insert(node, rewrite.node("Gather", [numbers, ids], [f"{out}_quantized"], {"axis": 0}))
    floats = rewrite.insert(
        node, rewrite.node("Cast", [rows], [f"{out}_cast"], {"to": int(ir.DataType.FLOAT)})
    )
    factors = rewrite.insert(node, rewrite.node("Gather", [column, ids], [f"{out}_scale"], {"axis": 0}))
    rewrite.replace(node, rewrite.insert(node, rewrite.node("Mul", [floats, factors], [f"{out}_float"])))


def _stored(rewrite: Rewrite, name: str, table: ir.TensorProtocol) -> tuple[ir.Value, ir.Value]:
    """Store a table; return its numbers, int8[rows, columns], and its scales, float32[rows, 1]."""
    scales = weight_scales(table.numpy(), 0, _FORM)
    shape = tuple(int(n) for n in table.shape.numpy())
    make = partial(_rows, table, scales)
    numbers = rewrite.late(f"{name}_quantized", (ir.DataType.INT8, shape), make)
    return numbers, rewrite.constant(f"{name}_scale", scales.reshape(-1, 1))


def _rows(table: ir.TensorProtocol, scales: np.ndarray) -> np.ndarray:
    return quantized(table.numpy(), scales, 0, _FORM)
