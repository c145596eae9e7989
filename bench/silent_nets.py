"""The networks whose speed and size `bench/silent_failures.py` measures, and how it measures them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from anyport.bench.inputs import bench_case, choose_sizes
from anyport.errors import SessionError
from anyport.graph.fastest import Contestant, RaceSettings, race
from silent_case import quiet
from subjects import BATCH, Subject, hf, seeded, stirred

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from anyport.bench.pairing import PairedRatio
    from anyport.runtime import Optimization

_BUDGET_S: Final = 12.0  # of CPU time, for one ratio
N_SAMPLES: Final = 32


def _cnn() -> nn.Module:
    """Make a ResNet-18."""
    sizes = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
    config = hf.ResNetConfig(**sizes, layer_type="basic", num_labels=10)
    module: nn.Module = hf.ResNetForImageClassification(config)
    return module


def _encoder() -> nn.Module:
    """Make a BERT of four layers, with the vocabulary that BERT has."""
    sizes = {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 1536}
    module: nn.Module = hf.BertModel(hf.BertConfig(vocab_size=30522, **sizes), add_pooling_layer=False)
    return module


CNN: Final = Subject(
    "resnet18",
    lambda: seeded(_cnn),
    {"pixel_values": "float32[batch, 3, 112, 112]"},
    {"logits": "float32[batch, 10]"},
    BATCH,
)
ENCODER: Final = Subject(
    "bert4",
    lambda: stirred(seeded(_encoder)),
    {"input_ids": "int64[batch, sequence] 0..30521", "attention_mask": "int64[batch, sequence] 0..1"},
    {"last_hidden_state": "float32[batch, sequence, 384]"},
    BATCH | {"sequence": "1..128"},
)


class _Pooled(nn.Module):
    """A sentence encoder: the mean over the words of a text, at unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _encoder()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return float32[batch, 384]."""
        words = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(words.dtype)
        return nn.functional.normalize((words * mask).sum(1) / mask.sum(1), dim=-1)


def _with_outliers() -> nn.Module:
    """Make the encoder with one channel ten times larger in all layers but the last.

    Trained encoders have such channels: Kovaleva et al., "BERT Busters: Outlier Dimensions that Disrupt
    Transformers", 2021. A seeded one has none, and every way of quantizing it looks good.
    """
    module = stirred(seeded(_encoder))
    with torch.no_grad():
        for layer in list(module.get_submodule("encoder.layer").children())[:-1]:
            layer.get_parameter("output.LayerNorm.weight")[7] *= 10
    return module


EMBEDDER: Final = replace(
    ENCODER,
    name="sentence4",
    load=lambda: stirred(seeded(_Pooled)),
    outputs={"sentence": "float32[batch, 384]"},
)
FIXED: Final = replace(
    ENCODER,
    name="fixed4",
    inputs={"input_ids": "int64[1, 64] 0..30521", "attention_mask": "int64[1, 64] 0..1"},
    outputs={"last_hidden_state": "float32[1, 64, 384]"},
    dims={},
)
OUTLIERS: Final = replace(ENCODER, name="outliers4", load=_with_outliers)


def pictures() -> Iterator[dict[str, np.ndarray]]:
    """Yield pictures that differ, as photographs do: noise alone is the same picture to a network."""
    draw = np.random.default_rng(0)
    for _ in range(4 * N_SAMPLES):
        coarse = draw.normal(0, draw.uniform(0.3, 3), (1, 3, 4, 4)) + draw.normal(0, 1.5, (1, 3, 1, 1))
        fine = draw.normal(0, 0.3, (1, 3, 112, 112))
        yield {"pixel_values": (coarse.repeat(28, 2).repeat(28, 3) + fine).astype(np.float32)}


def exported(subject: Subject, folder: Path) -> Path:
    """Export a network with torch's default exporter; once for all rows of a run.

    `value_info` of weights is dropped: with it, `quantize_dynamic` fails, and says so.
    """
    path = folder.parent / f"{subject.name}.onnx"
    if path.exists():
        return path
    signature = subject.signature
    feeds = feeds_of(subject, 0, batch=2)
    axes = {
        spec.name: {place: torch.export.Dim(axis) for place, axis in spec.dynamic_axes().items()}
        for spec in signature.inputs
    }
    with quiet():
        torch.onnx.export(
            subject.load(),
            kwargs={name: torch.from_numpy(array) for name, array in feeds.items()},
            f=path,
            dynamic_shapes=axes if subject.dims else None,
            output_names=list(subject.outputs),
            external_data=False,
        )
    model = onnx.load(path)
    del model.graph.value_info[:]
    onnx.save(model, path)
    return path


def feeds_of(subject: Subject, seed: int, batch: int = 1) -> dict[str, np.ndarray]:
    """Draw inputs of the sizes that are timed; masks have no padding."""
    signature = subject.signature
    sizes = choose_sizes(signature, {"batch": batch} if "batch" in subject.dims else {})
    feeds = bench_case(signature, sizes, seed).arrays(signature.inputs)
    return {name: array | 1 if name == "attention_mask" else array for name, array in feeds.items()}


def faster(
    subject: Subject, base: Path, other: Path, levels: tuple[Optimization, Optimization] = ("all", "all")
) -> PairedRatio:
    """Return how many times faster than the base a file is, at batch 1 on one thread, by paired CPU time.

    Raises:
        SessionError: One of them does not run.
    """
    signature = subject.signature
    case = bench_case(signature, choose_sizes(signature, {}))
    contestants = [Contestant("base", base, 0, levels[0]), Contestant("other", other, 0, levels[1])]
    found = race(contestants, case, signature.inputs, RaceSettings(budget_s=_BUDGET_S))[contestants[1]]
    if isinstance(found, SessionError):
        raise found
    return found


def notations(subject: Subject) -> list[str]:
    """Return the options that tell anyport what a plain file does not say of itself."""
    pairs: tuple[tuple[str, Mapping[str, str]], ...] = (("--input", subject.inputs), ("--dim", subject.dims))
    return [
        word for option, table in pairs for name, text in table.items() for word in (option, f"{name}={text}")
    ]
