"""What a graph cannot keep, found in the program; the table of whole modules is in test_capture.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anyport.errors import ExportError, RefusedModelError
from anyport.graph.refusals import check_program
from tests.graph import usermodules as user
from tests.graph.exports import PARTS, shared
from tests.source.parts import part_of


def program_of(module: nn.Module, *tensors: torch.Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(module.eval(), tensors, strict=False)


@pytest.mark.parametrize("name", PARTS)
def test_clean_networks_pass_without_a_word(name: str) -> None:
    export = shared(name)
    assert check_program(export.captured.program, export.part) == ()


def test_dropout_in_eval_mode_is_no_dropout() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Dropout1d(0.5))
    program = program_of(module, torch.ones(2, 8))
    assert any("dropout" in str(node.target) for node in program.graph.nodes)
    assert check_program(program, part_of(module)) == ()


class Frozen(nn.Module):
    """Attention that is told of dropout and given none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.0)


def test_attention_without_dropout_is_not_random() -> None:
    assert check_program(program_of(Frozen(), torch.ones(2, 4, 8)), part_of(Frozen())) == ()


@pytest.mark.parametrize(
    ("module", "tensors", "kind"),
    [
        (user.RandnInForward(), 1, RefusedModelError),
        (user.AttentionDropout(), 1, RefusedModelError),
        (user.DropoutDefault(), 1, RefusedModelError),
        (user.BatchNormTraining(), 1, RefusedModelError),
        (user.KeepsHalf(), 1, RefusedModelError),
        (user.DeadInput(), 2, ExportError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_program_is_refused(module: nn.Module, tensors: int, kind: type[ExportError]) -> None:
    inputs = dict.fromkeys(("x", "mask")[:tensors], "float32[batch, 8]")
    with pytest.raises(kind):
        check_program(program_of(module, *[torch.ones(3, 8)] * tensors), part_of(module, inputs))


def test_a_written_weight_is_named_by_its_module() -> None:
    module = nn.Sequential(nn.Linear(8, 8), user.CountsItsRuns())
    with pytest.raises(RefusedModelError, match=r"writes to its own buffer '1\.runs'") as caught:
        check_program(program_of(module, torch.ones(3, 8)), part_of(module))
    assert caught.value.where is not None
    assert caught.value.where.startswith("module '1', usermodules.py:")
