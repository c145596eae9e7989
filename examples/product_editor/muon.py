"""The optimiser that made the difference here: Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/).

`torch.optim.Muon` takes matrices only and one at a time; this one takes kernels of convolutions too and
orthogonalises all matrices of one shape in one call, which on a processor is most of the time.
"""

from collections.abc import Callable, Iterable
from typing import Final

import torch
from torch import Tensor, nn

N_ROUNDS: Final = 4
QUINTIC: Final = (3.4445, -4.7750, 2.0315)  # from the post named above


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonalised.

    Args:
        parameters: Tensors of two or more dims; the first is the output's.
        lr: How far a step moves the singular values.
        momentum: Share of the running mean of gradients that stays.
        weight_decay: Share of the weights that a step of `lr` 1 takes away.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no closure here
        """Move every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("this optimiser takes no closure")
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._update(parameter, parameter.grad, group["momentum"])
                    by_shape.setdefault(parameter.shape, []).append((parameter, update))
            for shape, moved in by_shape.items():
                steps = orthogonal(torch.stack([update.flatten(1) for _, update in moved]))
                scale = group["lr"] * max(1.0, steps.shape[1] / steps.shape[2]) ** 0.5
                for (parameter, _), step in zip(moved, steps, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(step.view(shape), alpha=-scale)

    def _update(self, parameter: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """Return the gradient with Nesterov's look ahead."""
        mean: Tensor = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
        mean.lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return matrices with the same singular vectors whose singular values are near 1; computed in bfloat16.

    Args:
        matrices: float32[n, rows, columns].

    Returns:
        float32[n, rows, columns]; singular values of 0.7 to 1.2 where the given ones were not tiny.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if tall else matrices
    found = (found / (found.square().sum((1, 2), keepdim=True).sqrt() + 1e-7)).bfloat16()
    first, third, fifth = QUINTIC
    for _ in range(N_ROUNDS):
        square = found @ found.mT
        found = first * found + (third * square + fifth * square @ square) @ found
    return (found.mT if tall else found).float()
