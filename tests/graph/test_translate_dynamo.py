"""The dynamo exporter, from opset 18 on: what it cannot translate is named with the user's line."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from anyport.errors import ExportError
from anyport.graph.capture import capture
from anyport.graph.translate_dynamo import MIN_OPSET, translate
from tests.source.parts import part_of


class Eigenvalues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x.unsqueeze(-1) * x.unsqueeze(-2))


def test_an_operator_without_translation_is_named_with_its_line() -> None:
    part = part_of(Eigenvalues())
    with pytest.raises(ExportError, match="part 'network' has no translation to ONNX") as caught:
        translate(capture(part), part, MIN_OPSET, ())
    assert re.fullmatch(
        r"test_translate_dynamo\.py:\d+: return torch\.linalg\.eigvalsh\(.*\)", caught.value.where or ""
    )
    assert caught.value.do == "rewrite that line with operators that ONNX has"


@pytest.mark.parametrize("opset", [MIN_OPSET, 20])
def test_the_opset_is_written(opset: int) -> None:
    part = part_of(nn.Linear(8, 8), {"input": "float32[batch, 8]"})
    assert translate(capture(part), part, opset, ()).opset_imports[""] == opset
