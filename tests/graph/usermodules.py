"""Modules as users write them, each with one mistake or oddity; LINE marks what a message must name.

This file stands in for the user's own code: its lines are asserted in test_capture.py and others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class BranchOnValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # LINE
            return x + 1
        return x - 1


class LoopOnValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        n = x.abs().sum()
        while n > 1:  # LINE
            n, x = n / 2, x / 2
        return x


class ItemAsSlice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        k = x.argmax().item()
        return x[:, :k]


class ItemAsInt(nn.Module):
    """One int() more, and Python wants to know the number."""

    def forward(self, x: Tensor) -> Tensor:
        k = int(x.argmax().item())  # LINE
        return x[:, :k]


class ItemAsFactor(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.max().item()


class ToList(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        parts: Any = torch.ops.aten.split_with_sizes(x, n.tolist(), 1)
        return torch.cat([part.mean(1, keepdim=True) for part in parts], 1)


class NumpyTrip(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.flip(x.numpy(), 1).copy()) * 2  # LINE


class WritesItsInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x[:, 0] = 7.0
        return x * 2


class ComplexRope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(16.0).reshape(8, 2)
        self.register_buffer("turn", torch.polar(torch.ones(8, 2), angles))

    def forward(self, x: Tensor) -> Tensor:
        c = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        a, b = (c * self.get_buffer("turn")).split(1, -1)  # type: ignore[no-untyped-call]  # LINE
        return torch.view_as_real(a + b).flatten(-2)


class BoolIndex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0] * 2


class BoolIndexReshaped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0].reshape(2, -1)


class DictOutput(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor | None]:
        return {"b": x * 2, "a": x + 1, "n": None}


class TrainingMode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.drop(self.norm(x))
        return answer


class RandnInForward(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)  # LINE


class NormalInForward(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.new_empty(x.shape).normal_()  # LINE


class DropoutDefault(nn.Module):
    """functional.dropout is in training mode unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(8, 8), FunctionalDropout())

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.block(x)
        return answer


class FunctionalDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.3)  # LINE


class BatchNormTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.get_buffer("mean"), self.get_buffer("var")
        return functional.batch_norm(x, mean, var, training=True)  # LINE


class AttentionDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        q = x.unsqueeze(1)
        return functional.scaled_dot_product_attention(q, q, q, dropout_p=0.1).squeeze(1)  # LINE


class State(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(8))
        self.register_buffer("whole", torch.zeros(8, dtype=torch.int64))

    def state(self) -> Tensor:
        return self.get_buffer("runs")


class CountsItsRuns(State):
    def forward(self, x: Tensor) -> Tensor:
        self.state().add_(1)  # LINE
        return x + self.state()


class KeepsAnElement(State):
    def forward(self, x: Tensor) -> Tensor:
        self.state()[0] = x.mean()  # LINE
        return x * 2


class KeepsHalf(State):
    def forward(self, x: Tensor) -> Tensor:
        _, right = self.state().view(2, 4).contiguous().chunk(2, 0)
        right.mul_(2)  # LINE
        return x + self.state()


class ReplacesItsBuffer(State):
    def forward(self, x: Tensor) -> Tensor:
        self.runs = self.state() + x.mean(0)
        return x + self.state()


class WritesCopies(State):
    """Nothing to refuse: each of these is a copy."""

    def forward(self, x: Tensor) -> Tensor:
        cloned = self.state().clone()
        cloned[0] = 3
        cast = self.get_buffer("whole").to(x.dtype)
        cast.add_(1)
        spread = self.state().expand(x.shape[0], 8).contiguous()
        spread.sub_(1)
        return x + cloned + cast + spread


class ShapeAsTensor(nn.Module):
    """The silent case: torch.onnx alone makes the axis static and says nothing."""

    def forward(self, x: Tensor) -> Tensor:
        n = torch.as_tensor(x.shape[1])  # LINE
        return x / n


class BranchOnShape(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (2 if x.shape[0] == 3 else 3)  # LINE


class FixedView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(3, 4, 2).flatten(1)  # LINE


class CachedGrid(nn.Module):
    """As YOLOv5's: computed once, for the size of the example."""

    def __init__(self) -> None:
        super().__init__()
        self.grid: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None or self.grid.shape[0] != x.shape[1]:  # LINE
            self.grid = torch.arange(x.shape[1]).float()
        return x + self.grid


class Broadcast(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y  # LINE


class BatchAsGroups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 4, 4, 3, 3))
        self.style = nn.Linear(6, 4)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        b, c, h, w = x.shape
        kernel = (self.weight * self.style(style).view(b, 1, c, 1, 1)).view(b * 4, c, 3, 3)
        flat = x.view(1, b * c, h, w)
        return functional.conv2d(flat, kernel, padding=1, groups=b).view(b, 4, h, w)  # LINE


class ModeOption(nn.Module):
    def forward(self, x: Tensor, mode: str = "fast") -> Tensor:
        return x * 2 if mode == "fast" else x * 3


class Triple(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 -- the interface of torch
        return x.clone().mul_(3)


class CustomFunction(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = Triple.apply(x) + 1  # type: ignore[no-untyped-call]
        return answer


class NoSuchOperator(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = torch.linalg.eigvals(x @ x.T).real  # LINE
        return values


class DeadInput(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 -- that is the mistake
        return x * 2


class ShapeOnlyInput(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask.shape[0]


class Float64Leak(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.from_numpy(np.arange(8.0))


class Asserts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert (x >= -100).all(), "range"  # LINE
        return x * 2
