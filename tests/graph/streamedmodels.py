"""Small networks with a checkpoint on the disk, for exports without weights in memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from diffusers import QwenImageTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from anyport.graph.streamed import StreamOptions, StreamSource, stream_export
from anyport.recipe import Part
from anyport.recipe.weightless import weightless
from anyport.source import open_checkpoint
from anyport.tensors import Signature, dim, tensor
from tests.recipe.qwen_folders import varied

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.graph.storing import Graph

DTYPES: Final = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
INDEX: Final = "model.safetensors.index.json"


class Speller(nn.Module):
    """Weights that are tied, a weight in two layers, a convolution, buffers that are stored and computed."""

    def __init__(self, words: int = 300, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.widen = nn.Linear(width, 3 * width)
        self.narrow = nn.Linear(width, width)
        self.mix = nn.Conv1d(width, width, 3, padding=1)
        self.norm = nn.LayerNorm(width)
        self.unused = nn.Linear(width, 2)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.linspace(0.5, 1.5, width))
        self.register_buffer(
            "table", torch.linspace(0, 9, 16 * width).sin().view(16, width), persistent=False
        )

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits."""
        table: Any = self.table
        x = self.norm(self.embed(ids) * self.scale)
        x = x + torch.tanh(self.first(x)) + table.mean(0)
        x = x + torch.relu(self.second(x))
        x = x + self.mix(x.transpose(1, 2)).transpose(1, 2)
        query, key, value = (one[:, None] for one in self.widen(x).chunk(3, dim=-1))
        x = x + self.narrow(nn.functional.scaled_dot_product_attention(query, key, value)[:, 0])
        self.unused(x)
        logits: Tensor = self.head(x)
        return logits


def part_of(module: nn.Module) -> Part:
    """Return the network as a part."""
    signature = Signature(
        (tensor("ids", "int64[batch, length] 0..299"),),
        (tensor("logits", "float32[batch, length, 300]"),),
        {"batch": dim("batch", "1..8"), "length": dim("length", "1..64")},
    )
    return Part("speller", module.eval(), signature)


def write_speller(folder: Path, dtype: str = "F32", seed: int = 0) -> Speller:
    """Write a checkpoint of two shards, and return the network that has these very weights."""
    torch.manual_seed(seed)
    module = Speller().eval()
    with torch.no_grad():
        for name, weight in module.state_dict().items():
            noise = torch.randn(weight.shape) * (0.05 if name in {"embed.weight", "first.weight"} else 0)
            weight.copy_((weight + noise).to(DTYPES[dtype]))  # what is computed stays in float32
    folder.mkdir(parents=True)
    stored = {n: w.to(DTYPES[dtype]).contiguous() for n, w in module.state_dict().items()}
    del stored["head.weight"], stored["second.weight"]  # tied weights are stored once
    names = sorted(stored)
    index = {}
    for number, own in enumerate((names[:6], names[6:]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: stored[name] for name in own}, folder / file)
        index |= dict.fromkeys(own, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1000}, "weight_map": index}))
    return module


def empty_speller() -> Speller:
    """Return the network without weights."""
    with weightless():
        return Speller().eval()


def stream_speller(folder: Path, output: Path, options: StreamOptions) -> Graph:
    """Export the network of a checkpoint."""
    module = empty_speller()
    output.mkdir(parents=True, exist_ok=True)
    source = StreamSource(module, open_checkpoint(folder))
    return stream_export(part_of(module), source, output / "model.onnx", options)


DENOISER: Final[dict[str, Any]] = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "axes_dims_rope": (8, 12, 12),
    "joint_attention_dim": 48,
}


def empty_denoiser() -> Any:
    """Return a tiny denoiser of Qwen-Image without weights."""
    with weightless():
        return QwenImageTransformer2DModel(**DENOISER).eval()


def write_denoiser(folder: Path) -> Path:
    """Write one of bfloat16, as diffusers does: in three shards with an index."""
    torch.manual_seed(0)
    module: Any = varied(QwenImageTransformer2DModel(**DENOISER))
    module.to(torch.bfloat16).save_pretrained(folder, max_shard_size="300KB")
    return folder


def load_denoiser(folder: Path) -> Any:
    """Return the denoiser of a checkpoint, in float32."""
    module: Any = QwenImageTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32)
    return module.eval()


def denoiser_feeds(signature: Signature, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Return seeded inputs."""
    rng = np.random.default_rng(3)
    feeds = {}
    for spec in signature.inputs:
        shape = [sizes.get(axis.text) or int(axis.text) for axis in spec.axes]
        drawn = rng.random(shape) if spec.name == "timestep" else rng.standard_normal(shape)
        feeds[spec.name] = drawn.astype(np.float32)
    return feeds
