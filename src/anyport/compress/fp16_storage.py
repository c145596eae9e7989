"""Weights stored in 16 bits and cast to 32: ONNX Runtime casts once, when it opens the file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from anyport.compress.rewrite import HEAVY, is_small

if TYPE_CHECKING:
    from anyport.compress.rewrite import Rewrite

_MOST: Final = float(np.finfo(np.float16).max)


def rewrite_fp16(rewrite: Rewrite) -> None:
    """Store every float32 weight of 1 KiB and more in 16 bits."""
    for name, value in list(rewrite.graph.initializers.items()):
        tensor = rewrite.weight(value)
        if tensor is None or is_small(tensor) or not value.uses():
            continue
        readers = [node for node, _ in value.uses()]
        array = tensor.numpy()
        if max(float(array.max()), -float(array.min())) > _MOST:
            for node in (node for node in readers if node.op_type in HEAVY):
                rewrite.keep(node, f"a weight is beyond {_MOST:.0f}, the largest number of 16 bits")
            continue
        _store_half(rewrite, name, value, tensor)


def _store_half(rewrite: Rewrite, name: str, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    shape = tuple(int(n) for n in tensor.shape.numpy())
    half = rewrite.late(f"{name}_half", (ir.DataType.FLOAT16, shape), partial(_halves, tensor))
    cast = rewrite.node("Cast", [half], [f"{name}_float"], {"to": int(ir.DataType.FLOAT)})
    rewrite.graph.insert_before(rewrite.graph[0], cast)
    value.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
    rewrite.n_changed += 1


def _halves(tensor: ir.TensorProtocol) -> np.ndarray:
    halves: np.ndarray = tensor.numpy().astype(np.float16)
    return halves
