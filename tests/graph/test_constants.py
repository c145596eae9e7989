from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from anyport.graph.capture import capture
from anyport.graph.constants import WeightConstants
from anyport.source.adapter import PREFIX
from tests.source.parts import part_of


class Scaled(nn.Module):
    """Computes something from two weights alone, and uses it once."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.two = nn.Parameter(torch.tensor([3.0, 5.0]))

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[n, 2]."""
        return x * (torch.exp(self.one) + self.two)


def test_what_depends_on_weights_alone_is_computed_and_says_of_which() -> None:
    part = part_of(Scaled(), {"x": "float32[n, 2]"}, {"y": "float32[n, 2]"}, {"n": "1..4"})
    program = capture(part).program
    named = {
        node: (target.removeprefix(PREFIX), program.state_dict[target], "parameter")
        for node, target in program.graph_signature.inputs_to_parameters.items()
    }
    folds = {fold.of: fold.load() for fold in WeightConstants(program, named).folds()}
    assert set(folds) == {("one",), ("one", "two")}
    assert np.allclose(folds["one", "two"], np.exp([1.0, 2.0]) + np.array([3.0, 5.0]))
