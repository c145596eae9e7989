"""Weights stored in 16 bits and cast to 32: ONNX Runtime casts once, when it opens the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from anyport.compress.rewrite import HEAVY, is_small
from anyport.graph.narrow import store_narrow

if TYPE_CHECKING:
    from anyport.compress.rewrite import Rewrite

_MOST: Final = float(np.finfo(np.float16).max)


def rewrite_fp16(rewrite: Rewrite) -> None:
    """Store every float32 weight of 1 KiB and more in 16 bits."""
    halves = {}
    for name, value in rewrite.graph.initializers.items():
        tensor = rewrite.weight(value)
        if tensor is None or is_small(tensor) or not value.uses() or value.is_graph_output():
            continue
        readers = [node for node, _ in value.uses()]
        array = tensor.numpy()
        if max(float(array.max()), -float(array.min())) > _MOST:
            for node in (node for node in readers if node.op_type in HEAVY):
                rewrite.keep(node, f"a weight is beyond {_MOST:.0f}, the largest number of 16 bits")
            continue
        halves[name] = ir.DataType.FLOAT16
    store_narrow(rewrite.model, halves)
    rewrite.n_changed += len(halves)
