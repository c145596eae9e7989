"""The networks of `bench/silent_failures.py` that the default tools get wrong, each as small as it can be.

Each function is what ``--against bench/silent_models.py:NAME`` names: it returns a module in eval mode, but
for `left_in_training`, whose point it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from subjects import encoder, seeded

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["encoder"]  # the masked encoder is that of `bench/verdicts.py`


class _Expression(nn.Module):
    """A network of one expression."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return what the expression gives."""
        return self.function(x)


class _Layered(nn.Module):
    """A layer, and an expression behind it."""

    def __init__(self, layer: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return what the expression makes of the layer's answer."""
        return self.function(self.layer(x))


def averaged_by_length() -> nn.Module:
    """Divide a sum by a length that passes through `torch.as_tensor`, as diffusers' Qwen-Image does."""
    return _Expression(lambda x: x.sum(1) / torch.as_tensor(x.shape[1])).eval()


def left_in_training() -> nn.Module:
    """Return a classifier as its training left it: nobody called ``eval()``."""
    head = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))
    return seeded(lambda: head).train()


def noisy_decoder() -> nn.Module:
    """Add fresh noise to its features, as StyleGAN's layers do."""
    noisy = _Layered(nn.Linear(16, 8), lambda x: x + 0.5 * torch.randn_like(x))
    return seeded(lambda: noisy)


def branching() -> nn.Module:
    """Take another way where the mean of the inputs is low."""

    def function(x: Tensor) -> Tensor:
        return torch.sigmoid(x) if x.mean() > 0 else torch.tanh(x) * 2

    return _Expression(function).eval()


class _Recurrence(nn.Module):
    """A recurrence written as a Python loop over the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, 8]."""
        state = torch.zeros(x.shape[0], 8, dtype=x.dtype)
        for step in range(x.shape[1]):
            state = torch.tanh(self.inner(state) + x[:, step])
        return state


def looping() -> nn.Module:
    """Return a recurrence written as a Python loop."""
    return seeded(_Recurrence)


def log_gates() -> nn.Module:
    """Return log-sigmoid gates, as linear attention and state space models have them."""
    return seeded(lambda: _Layered(nn.Linear(16, 8), lambda x: nn.functional.logsigmoid(x * 200)))


def weighted_pool() -> nn.Module:
    """Average with a divisor of its own: count-normalized pooling."""
    pool = nn.AvgPool2d(3, 2, 1, divisor_override=4)
    return seeded(lambda: _Layered(nn.Conv2d(3, 4, 3, padding=1), pool))


class _Scattered(nn.Module):
    """Messages of a graph network, reduced at the nodes they arrive at."""

    def __init__(self, reduce: str) -> None:
        super().__init__()
        self.reduce = reduce
        self.body = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, 3, 8]."""
        target = torch.tensor([0, 1, 2, 0, 1, 0])[None, :, None].expand(x.shape[0], 6, 8)
        nodes = torch.ones(x.shape[0], 3, 8, dtype=x.dtype)
        return nodes.scatter_reduce(1, target, self.body(x), self.reduce)


def mean_messages() -> nn.Module:
    """Return a graph network that takes the mean of messages."""
    return seeded(lambda: _Scattered("mean"))


class _Accumulated(nn.Module):
    """Votes added up in a grid, several at one place."""

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[3]."""
        place = torch.tensor([0, 1, 2, 0, 1, 0])
        return torch.zeros(3, dtype=x.dtype).index_put((place,), x.mean(0), accumulate=True)


def voting() -> nn.Module:
    """Return votes that are added up."""
    return _Accumulated().eval()


def relative_buckets() -> nn.Module:
    """Bucket signed distances by a floor division, as relative position tables are indexed."""
    return _Expression(lambda x: x // 4).eval()


def padded_pool() -> nn.Module:
    """Pad with zeros and pool, as TensorFlow ports of ResNet do: below zero the padding wins."""
    pool = nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, 2))
    return seeded(lambda: _Layered(nn.Conv2d(3, 4, 3, padding=1), pool))


class _Guarded(nn.Module):
    """A network that refuses what it was not made for."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the square root, of what has one."""
        assert (x >= 0).all(), "negative"  # noqa: S101 -- the point of it
        return torch.sqrt(x + 4)


def guarded() -> nn.Module:
    """Return a network with an assertion."""
    return _Guarded().eval()


class _Masked(nn.Module):
    """A text encoder that loses its mask on the way, as transformers' BLIP does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 -- the point of it
        """Return float32[batch, 8]."""
        pooled: Tensor = self.body(x).mean(1)
        return pooled


def unread_mask() -> nn.Module:
    """Return an encoder that does not read its mask."""
    return seeded(_Masked)


def embedder() -> nn.Module:
    """Return an embedding and its mean, whose output a user likes to call ``embedding``."""
    return seeded(lambda: _Layered(nn.Embedding(50, 8), lambda x: x.mean(1)))


def normed_embedding() -> nn.Module:
    """Return unit-length rows, as every sentence encoder does."""
    return seeded(lambda: _Layered(nn.Linear(16, 8), lambda x: x / x.norm(dim=-1, keepdim=True)))


def two_clips() -> nn.Module:
    """Clamp twice, to ranges that do not meet."""
    return seeded(lambda: _Layered(nn.Linear(16, 8), lambda x: x.clamp(-1.0, -0.5).clamp(0.0, 1.0)))


def scaled_columns() -> nn.Module:
    """Weigh the columns of a convolution's answer, as many as it has channels."""
    scale = torch.linspace(0.5, 2.0, 8)
    return seeded(lambda: _Layered(nn.Conv2d(3, 8, 3, padding=1), lambda x: x * scale.to(x.dtype)))


def two_noises() -> nn.Module:
    """Return the distance of two noises: zero only if they are the same."""
    return _Expression(lambda x: torch.rand_like(x) - torch.rand_like(x)).eval()


def large_activations() -> nn.Module:
    """Go through values above 65504, the largest of float16, and back."""
    return seeded(lambda: _Layered(nn.Linear(16, 512), lambda x: torch.log1p((x * 400) ** 2) - 10))


def opset_net() -> nn.Module:
    """Pad and pool: torch's converter of opsets does not know `Pad`."""
    pool = nn.Sequential(nn.ReLU(), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2))
    return seeded(lambda: _Layered(nn.Conv2d(3, 4, 3, padding=1), pool))


def channel_softmax() -> nn.Module:
    """Return a softmax over channels, as a segmentation head has it."""
    return seeded(lambda: _Layered(nn.Conv2d(3, 5, 1), lambda x: torch.softmax(x, 1)))
