"""Short translations of PyTorch operators, for graphs that no optimizer goes over.

The dynamo exporter writes what holds for every size, and leaves it to its optimizer to find out what is
known. That optimizer does not end on the graph of a model of 60 layers, so that what is known is used here.
"""

from __future__ import annotations

from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

import torch
from onnxscript import opset18 as op
from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Mapping

_N_AXES: Final = 4
_COMPLICATIONS: Final = ("dropout_p", "is_causal", "enable_gqa")
_TRANSLATION: Any = aten_scaled_dot_product_attention
_OWN: Final = _TRANSLATION.func
_DEFAULTS: Final = {name: parameter.default for name, parameter in signature(_OWN).parameters.items()}


@wraps(_OWN)  # the exporter reads the names and types of the arguments
def attention(*given: Any, **named: Any) -> Any:
    """Write ``aten::scaled_dot_product_attention``: without a mask, with heads of a known size, in 5 nodes.

    It is what `anyport.graph.attention` looks for. Everything else is left to the exporter's own translation.
    """
    words = _DEFAULTS | dict(zip(_DEFAULTS, given, strict=False)) | named
    query, key, value = (words[name] for name in ("query", "key", "value"))
    size = query.shape[-1] if query.shape is not None and len(query.shape) == _N_AXES else None
    is_plain = words["attn_mask"] is None and not any(words[name] for name in _COMPLICATIONS)
    if not is_plain or not isinstance(size, int):
        return _OWN(*words.values())
    scale = words["scale"]
    factor = op.Constant(value_float=float(size**-0.5 if scale is None else scale))
    scores = op.Mul(op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2])), factor)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


COMPACT: Final[Mapping[Any, Any]] = {torch.ops.aten.scaled_dot_product_attention.default: attention}
