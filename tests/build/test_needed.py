"""The weights that outputs depend on are found by following every result back, without a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from anyport.build.needed import needed_weights
from anyport.recipe import Part
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = {"batch": 2, "tokens": 3}


class Branches(nn.Module):
    """float32[batch, tokens, 4] -> float32[batch, tokens, 4], by way of what a test says."""

    def __init__(self, way: Callable[[Branches, Tensor], Tensor]) -> None:
        super().__init__()
        self.way = way
        self.main, self.other = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.register_buffer("table", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def unasked(module: Branches, x: Tensor) -> Tensor:
    module.other(x)
    answer: Tensor = module.main(x)
    return answer


def overwritten(module: Branches, x: Tensor) -> Tensor:
    answer = torch.zeros_like(x)
    answer[:, 0] = module.main(x)[:, 0]
    answer.view(-1)[1:3].mul_(module.table[0])
    return answer


def flat(module: Branches, x: Tensor) -> Tensor:
    answer: Tensor = module.main(x.flatten(0, 1)).view_as(x) + module.other(x)
    return answer


def by_value(module: Branches, x: Tensor) -> Tensor:
    return x * module.table if bool((module.other(x) > 0).all()) else x + module.table


@pytest.mark.parametrize(
    ("way", "names", "turned"),
    [
        (unasked, {"main.weight", "main.bias"}, {"main.weight", "other.weight"}),
        (overwritten, {"main.weight", "main.bias", "table"}, {"main.weight"}),
        (flat, {"main.weight", "main.bias", "other.weight"}, {"other.weight"}),
        (by_value, {"table"}, {"other.weight"}),
        (lambda _, x: x + 1, set(), set()),
    ],
)
def test_what_the_outputs_depend_on(
    way: Callable[[Branches, Tensor], Tensor], names: set[str], turned: set[str]
) -> None:
    module = Branches(way).to("meta").eval()
    signature = Signature(
        (tensor("x", "float32[batch, tokens, 4]"),),
        (tensor("y", "float32[batch, tokens, 4]"),),
        {"batch": dim("batch", "1..9"), "tokens": dim("tokens", "1..9")},
    )
    needed, ids = needed_weights(Part("network", module, signature), SIZES)
    named = {id(one): name for name, one in (*module.named_parameters(), *module.named_buffers())}
    assert {named[id(one)] for one in needed} == names
    assert {named[one] for one in ids} == turned
    assert not any(child._forward_pre_hooks for child in module.modules()), "the module is as it was"
