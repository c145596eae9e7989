"""Mistakes of the exporter that are mended, shown by numbers: with the cure right, without it wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyport.graph import convert as room
from anyport.graph.cures import PADDED_ROWS
from anyport.graph.storing import StoreOptions, store
from tests.graph.exports import export, run_onnx, shared
from tests.source.parts import part_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anyport.recipe import Part

INSIDE = StoreOptions("inside")
IDS = np.arange(12).reshape(2, 6)
PADDED = np.array([[1, 1, 1, 0, 0, 0], [0] * 6])


class Attention(nn.Module):
    """Attention under a boolean mask; ``finite`` masks by hand, with a number that means what it says."""

    def __init__(self, *, finite: bool = False) -> None:
        super().__init__()
        self.finite = finite

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        # ONNX Runtime's Attention (opset 23) takes no mask of one row for all queries
        keep = mask.bool()[:, None, None, :].expand(-1, -1, x.shape[1], -1)
        q = x.unsqueeze(1)
        if not self.finite:
            return nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=keep).squeeze(1)
        scores = q @ q.transpose(2, 3)
        scores = scores.masked_fill(~keep, torch.finfo(torch.float32).min)
        return (torch.softmax(scores, -1) @ q).squeeze(1)


def attention_part(*, finite: bool = False) -> Part:
    inputs = {"x": "float32[batch, sequence, 8]", "mask": "int64[batch, sequence] 0..1"}
    dims = {"batch": "1..8", "sequence": "1..16"}
    return part_of(Attention(finite=finite), inputs, {"y": "float32[batch, sequence, 8]"}, dims)


def difference(part: Part, path: Path, feeds: Mapping[str, np.ndarray]) -> float:
    with torch.no_grad():
        answer = part.module(**{name: torch.from_numpy(array) for name, array in feeds.items()})
    expected = answer if isinstance(answer, Tensor) else answer[0]
    (found,) = run_onnx(path, feeds).values()
    return float(np.abs(found - expected.numpy()).max())


def feeds(n: int = 2) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((n, 6, 8), np.float32)
    return {"x": x, "mask": PADDED[:n]}


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_a_fully_padded_row_attends_to_nothing(opset: int, tmp_path: Path) -> None:
    part = attention_part()
    given = export(part, opset)
    graph = store(given.converted, tmp_path / "m.onnx", INSIDE)
    assert difference(part, graph.path, feeds()) < 1e-6
    assert given.converted.cures == ((PADDED_ROWS,) if opset < 23 else ())


def test_the_cure_is_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "apply_cures", lambda _model: ())
    part = attention_part()
    graph = store(export(part).converted, tmp_path / "m.onnx", INSIDE)
    assert difference(part, graph.path, feeds(1)) < 1e-6
    assert difference(part, graph.path, feeds()) > 1e-2


def test_a_finite_mask_of_the_model_itself_is_left_alone(tmp_path: Path) -> None:
    part = attention_part(finite=True)
    given = export(part)
    assert given.converted.cures == ()
    graph = store(given.converted, tmp_path / "m.onnx", INSIDE)
    assert difference(part, graph.path, feeds()) < 1e-6


def test_bert_with_a_padded_row(tmp_path: Path) -> None:
    given = shared("bert")
    assert given.converted.cures in ((), (PADDED_ROWS,))
    graph = given.store(tmp_path, INSIDE)
    fed = {"input_ids": IDS, "attention_mask": PADDED}
    assert difference(given.part, graph.path, fed) < 1e-5


@pytest.mark.parametrize("name", ["encoder", "folding", "resnet"])
def test_clean_graphs_need_no_cure(name: str) -> None:
    assert shared(name).converted.cures == ()
