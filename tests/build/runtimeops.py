"""A model with an operator of onnxruntime-extensions: x, apart into what is below 0 and above."""

from __future__ import annotations

import torch
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import Opset
from torch import Tensor, nn

contrib = Opset("ai.onnx.contrib", 1)


@torch.library.custom_op("anyport_tests::below_above", mutates_args=())
def below_above(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return min(x, 0) and max(x, 0)."""
    return x.clamp(max=0), x.clamp(min=0)


@below_above.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


@script(default_opset=op)
def below_above_in_onnx(x: FLOAT) -> tuple[FLOAT, FLOAT]:
    below, above = contrib.NegPos(x)
    return below, above


OPS = {"anyport_tests::below_above": below_above_in_onnx, "ai.onnx.contrib": "onnxruntime-extensions"}
NO_LIBRARY = {"anyport_tests::below_above": below_above_in_onnx}


class Split(nn.Module):
    """Linear, split by sign."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, 4]."""
        below, above = torch.ops.anyport_tests.below_above(self.layer(x))
        answer: Tensor = above * 2 - below
        return answer


def split() -> nn.Module:
    """Return the model."""
    torch.manual_seed(0)
    return Split().eval()
