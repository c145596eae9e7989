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
    for node in [node for node in rewrite.graph if node.op_type == "Gather" and not node.domain]:
        table = rewrite.weight(node.inputs[0])
        if table is None or len(node.inputs) != 2:  # noqa: PLR2004 -- what is gathered, and where
            continue  # no table: indices into something that is computed
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        if len(table.shape) != _TABLE_AXES or axis != 0:
            rewrite.keep(node, f"it reads along axis {axis} of {len(table.shape)}")
        elif is_small(table):
            rewrite.keep(node, "its table is smaller than 1 KiB")
        else:
            _quantize_table(rewrite, node, table)


def _quantize_table(rewrite: Rewrite, node: ir.Node, table: ir.TensorProtocol) -> None:
    name, ids = str(node.inputs[0].name), node.inputs[1]  # type: ignore[union-attr]
    scales = weight_scales(table.numpy(), 0, _FORM)
    make = partial(_rows, table, scales)
    shape = tuple(int(n) for n in table.shape.numpy())
    numbers = rewrite.late(f"{name}_quantized", (ir.DataType.INT8, shape), make)
    column = rewrite.constant(f"{name}_scale", scales.reshape(-1, 1))
    out = str(node.outputs[0].name)
    rows = rewrite.insert(node, rewrite.node("Gather", [numbers, ids], [f"{out}_quantized"], {"axis": 0}))
    floats = rewrite.insert(
        node, rewrite.node("Cast", [rows], [f"{out}_cast"], {"to": int(ir.DataType.FLOAT)})
    )
    factors = rewrite.insert(node, rewrite.node("Gather", [column, ids], [f"{out}_scale"], {"axis": 0}))
    rewrite.replace(node, rewrite.insert(node, rewrite.node("Mul", [floats, factors], [f"{out}_float"])))
    rewrite.n_changed += 1


def _rows(table: ir.TensorProtocol, scales: np.ndarray) -> np.ndarray:
    return quantized(table.numpy(), scales, 0, _FORM)
