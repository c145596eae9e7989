"""Short translations: the same numbers as PyTorch's, in fewer nodes, and only where they are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from anyport.graph.capture import quiet
from anyport.graph.compact import COMPACT
from anyport.runtime import open_session

if TYPE_CHECKING:
    from pathlib import Path

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


class Attention(nn.Module):
    """Attention with other words each."""

    def __init__(self, *, causal: bool = False, masked: bool = False, scale: float | None = None) -> None:
        super().__init__()
        self.causal, self.masked, self.scale = causal, masked, scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what the queries take."""
        mask = (torch.arange(key.shape[2]) < 3)[None].expand(query.shape[2], -1) if self.masked else None
        found: Tensor = nn.functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=self.causal, scale=self.scale
        )
        return found


FORMS = {
    "plain": Attention(),
    "scaled": Attention(scale=0.3),
    "causal": Attention(causal=True),
    "masked": Attention(masked=True),
}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_attention_answers_as_pytorch_does(tmp_path: Path, form: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 3, 6, 8, generator=generator) for _ in range(3)]
    shapes = tuple({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC} for _ in tensors)
    with quiet():
        program = torch.export.export(FORMS[form], tuple(tensors), dynamic_shapes=shapes)
        made = torch.onnx.export(
            program, (), dynamo=True, optimize=False, verbose=False, custom_translation_table=dict(COMPACT)
        )
    assert made is not None
    ir.save(made.model, tmp_path / "attention.onnx")
    session = open_session(tmp_path / "attention.onnx")
    names = [spec.name for spec in session.inputs]
    found = session.run({n: t.numpy() for n, t in zip(names, tensors, strict=True)})
    assert np.allclose(next(iter(found.values())), FORMS[form](*tensors).numpy(), rtol=0, atol=2e-6)
    operators = [node.op_type for node in made.model.graph]
    is_short = operators.count("Shape") == 0 and operators.count("Transpose") == 1
    assert is_short is (form in {"plain", "scaled"})


def test_the_table_names_operators_of_pytorch() -> None:
    assert set(COMPACT) == {ATTENTION}
