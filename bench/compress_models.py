"""Networks of real size with seeded weights, and inputs for them: no accuracy claim can come of them.

Batch normalizations take their statistics from the inputs below, so that activations have the ranges of a
trained network; the answers of random weights say little about their inputs all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Feeds = dict[str, np.ndarray]
hf: Final[Any] = import_module("transformers")  # typed in part only, and nothing here depends on it

N_SAMPLES: Final = 96
_PIXELS: Final = 224
_N_TOKENS: Final = 128
_N_WORDS: Final = 30522
_N_PREPARED: Final = 32  # samples that set the statistics of a network


@dataclass(frozen=True, slots=True)
class Sized:
    """One network of the bench.

    Attributes:
        load: The function of this file that makes it.
        inputs: Name -> notation.
        outputs: Name -> notation.
        samples: The function of this file that yields its inputs.
        dims: Name -> notation.
        smaller: At least this many times smaller in INT8.
        faster: Instruction set -> at least this many times faster.
    """

    load: Callable[[], nn.Module]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    samples: Callable[[], Iterator[Feeds]]
    dims: Mapping[str, str]
    smaller: float
    faster: Mapping[str, float] = field(default_factory=dict)


def pictures() -> Iterator[Feeds]:
    """Yield pictures of coloured waves with some noise: float32[1, 3, 224, 224]."""
    axis = np.linspace(0, 2 * np.pi, _PIXELS, dtype=np.float32)
    for seed in range(N_SAMPLES):
        random = np.random.default_rng(seed)
        rates, phases = random.uniform(0, 12, (2, 3, 4, 1)), random.uniform(0, 6.3, (2, 3, 4, 1))
        rows, columns = np.sin(rates * axis + phases).astype(np.float32)
        waves = np.einsum("cwh,cwv->chv", rows, columns) * random.uniform(0.1, 1, (3, 1, 1))
        noise = random.normal(0, 0.1, waves.shape)
        yield {"pixel_values": (waves + random.uniform(-1, 1, (3, 1, 1)) + noise).astype(np.float32)[None]}


def sentences() -> Iterator[Feeds]:
    """Yield token ids, without padding: int64[1, 128]."""
    for seed in range(N_SAMPLES):
        random = np.random.default_rng(seed)
        vocabulary = random.integers(0, _N_WORDS, 20)  # a text repeats its words
        ids = random.choice(vocabulary, (1, _N_TOKENS)).astype(np.int64)
        yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def resnet_50() -> nn.Module:
    """Make a ResNet-50."""
    torch.manual_seed(0)
    return _normalized(hf.ResNetForImageClassification(hf.ResNetConfig(num_labels=1000)))


def vit_base() -> nn.Module:
    """Make a ViT-base at 224 pixels."""
    torch.manual_seed(0)
    model: nn.Module = hf.ViTForImageClassification(hf.ViTConfig(num_labels=1000))
    return model.eval()


def vit_large() -> nn.Module:
    """Make a ViT-L at 224 pixels: 1.2 GB."""
    torch.manual_seed(0)
    widths: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 4096}
    config = hf.ViTConfig(num_labels=1000, num_hidden_layers=24, num_attention_heads=16, **widths)
    model: nn.Module = hf.ViTForImageClassification(config)
    return model.eval()


def bert_base() -> nn.Module:
    """Make a BERT-base."""
    torch.manual_seed(0)
    model: nn.Module = hf.BertModel(hf.BertConfig(vocab_size=_N_WORDS))
    return model.eval()


def _normalized(model: nn.Module) -> nn.Module:
    """Set the statistics of the batch normalizations."""
    inputs = [
        torch.from_numpy(feeds["pixel_values"])
        for feeds, _ in zip(pictures(), range(_N_PREPARED), strict=False)
    ]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.cat(inputs))
    return model.eval()


_PICTURE: Final = {"pixel_values": f"float32[batch, 3, {_PIXELS}, {_PIXELS}]"}
_LOGITS: Final = {"logits": "float32[batch, 1000]"}
_IDS: Final = {
    "input_ids": f"int64[batch, sequence] 0..{_N_WORDS - 1}",
    "attention_mask": "int64[batch, sequence] 0..1",
}
_TEXT: Final = {"last_hidden_state": "float32[batch, sequence, 768]", "pooler_output": "float32[batch, 768]"}
_BATCH: Final = {"batch": "1..4"}
_ENCODER: Final = {"avx512_vnni": 2.2, "avx2": 1.3}

SIZED: Final[Mapping[str, Sized]] = {
    "bert-base": Sized(
        bert_base, _IDS, _TEXT, sentences, {**_BATCH, "sequence": f"1..{2 * _N_TOKENS - 1}"}, 3.6, _ENCODER
    ),
    "resnet-50": Sized(
        resnet_50, _PICTURE, _LOGITS, pictures, _BATCH, 3.8, {"avx512_vnni": 2.5, "avx2": 1.3}
    ),
    "vit-base": Sized(vit_base, _PICTURE, _LOGITS, pictures, _BATCH, 3.6, _ENCODER),
    "vit-large": Sized(vit_large, _PICTURE, _LOGITS, pictures, _BATCH, 3.6, _ENCODER),
}
