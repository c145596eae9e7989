"""A model with operators of its own: registered with torch.library, translated by `OPS`."""

from __future__ import annotations

import torch
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from torch import Tensor, nn


@torch.library.custom_op("anyport_tests::soft_clip", mutates_args=())
def soft_clip(x: Tensor, limit: float) -> Tensor:
    """Return x, bent so that it stays within the limit."""
    return limit * torch.tanh(x / limit)


@soft_clip.register_fake
def _(x: Tensor, _limit: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("anyport_tests::parts", mutates_args=())
def parts(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return what is above 0 and what is below, summed over an axis."""
    return x.clamp(min=0).sum(axis), x.clamp(max=0).sum(axis)


@parts.register_fake
def _(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    return x.sum(axis), x.sum(axis)


@script(default_opset=op)
def soft_clip_in_onnx(x: FLOAT, limit: float) -> FLOAT:
    bound = op.Constant(value_float=limit)
    return op.Mul(bound, op.Tanh(op.Div(x, bound)))


@script(default_opset=op)
def parts_in_onnx(x: FLOAT, axis: int) -> tuple[FLOAT, FLOAT]:
    axes = op.Reshape(op.Constant(value_int=axis), op.Constant(value_ints=[1]))
    zero = op.Constant(value_float=0.0)
    above = op.ReduceSum(op.Max(x, zero), axes, keepdims=0)
    below = op.ReduceSum(op.Min(x, zero), axes, keepdims=0)
    return above, below


@script(default_opset=op)
def wrong_clip(x: FLOAT, limit: float) -> FLOAT:
    return op.Mul(op.Constant(value_float=limit), op.Tanh(x))


WRONG_OPS = {"anyport_tests::soft_clip": wrong_clip, "anyport_tests::parts": parts_in_onnx}
OPS = {"anyport_tests::soft_clip": soft_clip_in_onnx, "anyport_tests::parts": parts_in_onnx}


class Clipped(nn.Module):
    """Linear, clipped; and the sums of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32[batch, 4] and float32[batch]."""
        clipped = torch.ops.anyport_tests.soft_clip(self.layer(x), 0.75)
        above, below = torch.ops.anyport_tests.parts(clipped, 1)
        # the sizes after an operator of one's own must stay dynamic
        return clipped.reshape(x.shape[0], 4) * 2, (above - below).reshape(above.shape[0])


def clipped() -> nn.Module:
    """Return the model."""
    torch.manual_seed(0)
    return Clipped().eval()
