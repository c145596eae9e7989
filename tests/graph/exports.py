"""Small exports that several tests of the graph share, made once per process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import torch
import transformers as hf
from torch import Tensor, nn

from anyport.graph.capture import Capture, capture
from anyport.graph.convert import DEFAULT_OPSET, Converted, convert
from anyport.graph.storing import Graph, StoreOptions, store
from anyport.source.lines import user_line
from tests.source.parts import part_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.recipe import Part

MODULES = Path(__file__).with_name("usermodules.py")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ALPHABET = {"batch": "1..8", "sequence": "1..16"}


@dataclass(frozen=True)
class Export:
    part: Part
    captured: Capture
    converted: Converted
    opset: int = DEFAULT_OPSET

    def store(self, folder: Path, options: StoreOptions | None = None, name: str = "model.onnx") -> Graph:
        """Write it; a conversion can be written once, because the weights then lie in the file."""
        return store(convert(self.captured, self.part, self.opset), folder / name, options or StoreOptions())


def export(part: Part, opset: int = DEFAULT_OPSET) -> Export:
    captured = capture(part)
    return Export(part, captured, convert(captured, part, opset), opset)


def line_of(class_name: str) -> str:
    """Return ``usermodules.py:12: code`` of the line marked LINE in a class."""
    lines = MODULES.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"class {class_name}("))
    place = next(i for i in range(start, len(lines)) if lines[i].endswith("# LINE"))
    return f"usermodules.py:{place + 1}: {lines[place].strip()}"


def class_line(class_name: str) -> str:
    """Return ``ClassName, usermodules.py:12``: where a class is written."""
    lines = MODULES.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"class {class_name}("))
    return f"{class_name}, usermodules.py:{start + 1}"


def write_all(given: Export, folder: Path) -> None:
    """Write graph, weights and module map."""
    given.store(folder)
    (folder / "modules.json").write_bytes(given.converted.modules.encode())


def run_onnx(path: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────
class Block(nn.Module):
    """A transformer block in the user's own words."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query_key_value(self.norm(x)).chunk(3, -1)
        attended = nn.functional.scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1))
        x = x + self.out(attended.squeeze(1))
        answer: Tensor = x + self.mlp(x)
        return answer


class Encoder(nn.Module):
    """Two blocks over an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.blocks = nn.ModuleList([Block(16), Block(16)])

    def forward(self, ids: Tensor) -> Tensor:
        x: Tensor = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return x


class TiedNorms(nn.Module):
    """All that optimizers fold: convolutions before norms, a lone norm, exp of a weight, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.lone = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.up_norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.tensor([0.5, 0.25, -0.5, 1.5]).reshape(4, 1, 1))
        self.left, self.right = nn.Linear(12, 12), nn.Linear(12, 12)
        self.right.weight = self.left.weight
        self.never = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(torch.relu(self.lone(x))))
        x = self.up_norm(self.up(x)) * self.scale.exp()
        answer: Tensor = self.right(torch.tanh(self.left(x)))
        return answer


def shake_norms(module: nn.Module) -> nn.Module:
    """Give every norm statistics of its own: fresh ones are 0 and 1, which hides mistakes."""
    generator = torch.Generator().manual_seed(3)
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    for norm in norms:
        for tensor, low in ((norm.running_mean, -0.5), (norm.running_var, 0.5), (norm.weight, 0.5)):
            assert tensor is not None
            tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator))
    return module


def encoder_part() -> Part:
    torch.manual_seed(0)
    inputs, outputs = {"ids": "int64[batch, sequence] 0..49"}, {"features": "float32[batch, sequence, 16]"}
    return part_of(Encoder(), inputs, outputs, ALPHABET)


def folding_part() -> Part:
    torch.manual_seed(0)
    inputs, outputs = {"x": "float32[batch, 4, 6, 6]"}, {"y": "float32[batch, 4, 12, 12]"}
    return part_of(shake_norms(TiedNorms()), inputs, outputs, {"batch": "1..8"})


def resnet_part() -> Part:
    torch.manual_seed(0)
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    inputs = {"pixel_values": "float32[batch, 3, 32, 32]"}
    outputs = {"last_hidden_state": "float32[batch, 16, 4, 4]"}
    return part_of(shake_norms(hf.ResNetModel(config)), inputs, outputs, {"batch": "1..8"})


def vit_part() -> Part:
    torch.manual_seed(0)
    config: Any = hf.ViTConfig(image_size=16, patch_size=8, **SMALL)  # type: ignore[arg-type]
    inputs = {"pixel_values": "float32[batch, 3, 16, 16]"}
    outputs = {"last_hidden_state": "float32[batch, 5, 32]", "pooler_output": "float32[batch, 32]"}
    return part_of(hf.ViTModel(config), inputs, outputs, {"batch": "1..8"})


def bert_part() -> Part:
    torch.manual_seed(0)
    config: Any = hf.BertConfig(vocab_size=50, max_position_embeddings=16, **SMALL)  # type: ignore[arg-type]
    inputs = {
        "input_ids": "int64[batch, sequence] 0..49",
        "attention_mask": "int64[batch, sequence] 0..1",
    }
    outputs = {"last_hidden_state": "float32[batch, sequence, 32]"}
    return part_of(hf.BertModel(config, add_pooling_layer=False), inputs, outputs, ALPHABET)


PARTS = {
    "bert": bert_part,
    "encoder": encoder_part,
    "folding": folding_part,
    "resnet": resnet_part,
    "vit": vit_part,
}


@cache
def shared(name: str, opset: int = DEFAULT_OPSET) -> Export:
    """Return an export that nobody may change."""
    return export(PARTS[name](), opset)


def weights_of(module: nn.Module) -> dict[str, np.ndarray]:
    """Return every parameter and buffer, also those that a checkpoint leaves out."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: tensor.detach().numpy() for name, tensor in named}


def holds(found: np.ndarray, weight: np.ndarray) -> bool:
    """Say whether an array is a weight, as it is or transposed (what the exporter does to matrices)."""
    return np.array_equal(found, weight) or np.array_equal(found, weight.T)


def is_line(text: str) -> bool:
    """Say whether a text is ``folder/file.py:12: code`` with no path of a machine."""
    return re.match(r"^[\w-]+(/[\w-]+)*\.py:\d+(: .+)?$", text) is not None and user_line(text) is None
