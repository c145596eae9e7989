"""Attention as one operator answers what it answered before; with a mask it is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from anyport.graph.attention import AttentionSite, find_attention, fuse_attention
from anyport.graph.capture import capture
from anyport.graph.convert import convert
from anyport.graph.storing import StoreOptions, store
from anyport.recipe import Part
from anyport.runtime import open_session
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WIDTH, HEADS = 24, 3
SITE = (HEADS, WIDTH // HEADS, WIDTH // HEADS)


def torchs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return nn.functional.scaled_dot_product_attention(q, k, v)


def by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) * 0.3, dim=-1) @ v


def divided(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) / 4, dim=-1) @ v


def unscaled(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v


def narrow_values(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v[..., :5]


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def biased(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) + q[..., :1], dim=-1) @ v


def over_queries(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(-1, -2), dim=-2) @ v


def looked_at(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    weights = torch.softmax(q @ k.transpose(-1, -2), dim=-1)
    return weights @ v + weights.sum()


def scaled_by_data(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.transpose(-1, -2) * q.mean(), dim=-1) @ v


class Attention(nn.Module):
    """One layer."""

    def __init__(self, attend: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.attend = attend
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mixed values."""
        layers = (self.query, self.key, self.value)
        split = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in layers)
        mixed: torch.Tensor = self.attend(*split)
        return mixed.transpose(1, 2).flatten(2)


def exported(
    attend: Callable[..., torch.Tensor], folder: Path, opset: int = 20
) -> tuple[tuple[AttentionSite, ...], Path]:
    torch.manual_seed(0)
    width = 15 if attend is narrow_values else WIDTH
    signature = Signature(
        (tensor("x", f"float32[batch, tokens, {WIDTH}]"),),
        (tensor("y", f"float32[batch, tokens, {width}]"),),
        {"batch": dim("batch", "1..4"), "tokens": dim("tokens", "1..64")},
    )
    part = Part("attention", Attention(attend).eval(), signature)
    converted = convert(capture(part), part, opset)
    sites = find_attention(converted.model)
    return sites, store(converted, folder / "model.onnx", StoreOptions()).path


@pytest.mark.parametrize("attend", [torchs, by_hand, divided, unscaled, narrow_values])
def test_fused_attention_answers_the_same(attend: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    sites, path = exported(attend, tmp_path)
    [site] = sites
    assert (site.n_heads, site.head_size, site.value_size) == (*SITE[:2], 5 if attend is narrow_values else 8)
    output = tmp_path / "fused.onnx"
    assert fuse_attention(path, sites, output) == 1
    model = onnx.load(str(output), load_external_data=False)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("MultiHeadAttention") == 1
    assert "Softmax" not in operators
    assert {entry.value for one in model.graph.initializer for entry in one.external_data[:1]} == {
        "weights.safetensors"
    }
    plain, fused = open_session(path), open_session(output)
    for shape in [(1, 1), (2, 3), (3, 64)]:
        x = np.random.default_rng(1).standard_normal((*shape, WIDTH)).astype(np.float32)
        np.testing.assert_allclose(fused.run({"x": x})["y"], plain.run({"x": x})["y"], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("attend", [causal, biased, over_queries, looked_at, scaled_by_data])
def test_other_attention_is_left_alone(attend: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    sites, path = exported(attend, tmp_path)
    assert sites == ()
    assert fuse_attention(path, sites, tmp_path / "fused.onnx") == 0
    assert not (tmp_path / "fused.onnx").exists()


def test_a_site_that_a_file_no_longer_has_is_left_out(tmp_path: Path) -> None:
    [site], path = exported(torchs, tmp_path)
    gone = AttentionSite("gone", site.n_heads, site.head_size, site.value_size)
    assert fuse_attention(path, [gone], tmp_path / "fused.onnx") == 0
    assert fuse_attention(path, [gone, site], tmp_path / "fused.onnx") == 1


def test_an_answer_of_the_graph_is_not_replaced(tmp_path: Path) -> None:
    """Attention whose result leaves the graph at once would lose its name."""
    _, path = exported(torchs, tmp_path)
    model = ir.load(path)
    mixed = next(n for n in model.graph if n.op_type == "Softmax").outputs[0].uses()[0][0].outputs[0]
    mixed.shape = ir.Shape(["batch", HEADS, "tokens", WIDTH // HEADS])
    model.graph.outputs.append(mixed)
    assert find_attention(model) == ()


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    sites, path = exported(torchs, tmp_path)
    for name in ("a.onnx", "b.onnx"):
        fuse_attention(path, sites, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
