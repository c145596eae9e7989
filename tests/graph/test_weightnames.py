from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from anyport.graph.capture import capture
from anyport.graph.convert import convert
from tests.source.parts import part_of

if TYPE_CHECKING:
    from torch import Tensor


class Matrices(nn.Module):
    """Two different matrices that are transposed on the way, two equal ones, and a table."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        self.same, self.again = nn.Linear(6, 6), nn.Linear(6, 6)
        self.again.load_state_dict(self.same.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[n, m, 6]."""
        answer: Tensor = self.again(self.same(self.two(torch.relu(self.one(x)))))
        return answer


def test_transposed_weights_bear_their_names_where_these_are_certain() -> None:
    part = part_of(
        Matrices().eval(), {"x": "float32[n, m, 6]"}, {"y": "float32[n, m, 6]"}, {"n": "1..4", "m": "1..4"}
    )
    converted = convert(capture(part), part)
    assert {"one.weight", "two.weight", "one.bias"} <= converted.weight_names
    assert not {name for name in converted.model.graph.initializers if name.startswith("module.")}
    stored = converted.model.graph.initializers["one.weight"].const_value
    assert stored is not None
    assert (stored.numpy() == part.module.one.weight.detach().numpy().T).all()  # type: ignore[union-attr]
    assert "same.weight" not in converted.weight_names or "again.weight" not in converted.weight_names
