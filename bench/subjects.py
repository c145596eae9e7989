"""Seeded networks, each with its signature: small architectures of transformers, and a few of our own.

Nothing is downloaded: every network is made from a configuration and a seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from anyport.recipe import Part
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

hf: Final[Any] = import_module("transformers")  # typed in part only, and nothing here depends on it

BATCH: Final = {"batch": "1..8"}
TEXT: Final = BATCH | {"sequence": "1..40"}
PICTURE: Final = BATCH | {"height": "32..96:32", "width": "32..96:32"}
IDS: Final = {"input_ids": "int64[batch, sequence] 0..199"}
MASKED_IDS: Final = IDS | {"attention_mask": "int64[batch, sequence] 0..1"}
FIXED_PIXELS: Final = {"pixel_values": "float32[batch, 3, 32, 32]"}
PIXELS: Final = {"pixel_values": "float32[batch, 3, height, width]"}
HIDDEN: Final = {"last_hidden_state": "float32[batch, sequence, 32]"}
POOLED: Final = {"pooler_output": "float32[batch, 32]"}
_SMALL: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to export, and what is declared about it.

    Attributes:
        name: Short, as the tables and ``--only`` say it.
        load: Makes it, in eval mode.
        inputs: Input name -> notation.
        outputs: Output name -> notation.
        dims: Named axis -> sizes.
        arguments: Fixed arguments of ``forward``.
    """

    name: str
    load: Callable[[], nn.Module]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    dims: Mapping[str, str]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def signature(self) -> Signature:
        """What is declared, read."""
        return Signature(
            tuple(tensor(name, text) for name, text in self.inputs.items()),
            tuple(tensor(name, text) for name, text in self.outputs.items()),
            {name: dim(name, text) for name, text in self.dims.items()},
        )

    def part(self) -> Part:
        """Make the network."""
        return Part(self.name.replace("-", "_"), self.load(), self.signature, self.arguments)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a network from seed 0, in eval mode.

    The statistics of BatchNorm, which a fresh network has as 0 and 1, are moved: a BatchNorm that does
    nothing would not be missed.
    """
    torch.manual_seed(0)
    module = make().eval()
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d) and child.running_mean is not None:
            nn.init.normal_(child.running_mean, 0.0, 0.2)
            nn.init.uniform_(child.get_buffer("running_var"), 0.5, 1.5)
            nn.init.uniform_(child.weight, 0.8, 1.2)
            nn.init.normal_(child.bias, 0.0, 0.2)
    return module


def stirred(module: nn.Module) -> nn.Module:
    """Move every bias and norm off its 0 or 1, so that no two weights are the same by chance."""
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight), alpha=0.05)
    return module


# ── clean exports ───────────────────────────────────────────────────────────────────────────────────────
def _text_config(name: str, **more: Any) -> Any:  # noqa: ANN401 -- a configuration of any class
    sizes = {"vocab_size": 200, "max_position_embeddings": 64}
    return getattr(hf, name)(**(sizes | _SMALL | more))


def _picture_config(name: str, **more: Any) -> Any:  # noqa: ANN401 -- a configuration of any class
    return getattr(hf, name)(**({"image_size": 32, "patch_size": 8} | _SMALL | more))


def _network(name: str, config: Any) -> nn.Module:  # noqa: ANN401 -- a configuration of any class
    module: nn.Module = getattr(hf, name)(config)
    return module


def _convnext() -> nn.Module:
    return _network(
        "ConvNextModel",
        hf.ConvNextConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1], layer_scale_init_value=0.1),
    )


def _dpt() -> nn.Module:
    necks = {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 16, 24, 24]}
    factors = {"fusion_hidden_size": 16, "reassemble_factors": [4, 2, 1, 0.5]}
    return _network(
        "DPTForDepthEstimation", _picture_config("DPTConfig", **necks, **factors, num_hidden_layers=4)
    )


def _gpt2() -> nn.Module:
    return _network(
        "GPT2LMHeadModel", hf.GPT2Config(vocab_size=200, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    )


def _resnet() -> nn.Module:
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 2, 1]}
    return _network("ResNetForImageClassification", hf.ResNetConfig(**sizes, num_labels=10))


def _regnet() -> nn.Module:
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 2, 1]}
    return _network("RegNetModel", hf.RegNetConfig(**sizes, groups_width=8))


def _segformer() -> nn.Module:
    sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4]}
    return _network(
        "SegformerForSemanticSegmentation", hf.SegformerConfig(**sizes, decoder_hidden_size=32, num_labels=5)
    )


def _swin() -> nn.Module:
    sizes = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
    return _network("SwinModel", hf.SwinConfig(image_size=32, patch_size=2, **sizes))


def _swin2sr() -> nn.Module:
    sizes = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}
    return _network("Swin2SRForImageSuperResolution", hf.Swin2SRConfig(image_size=16, **sizes, upscale=2))


def _t5() -> nn.Module:
    return _network(
        "T5EncoderModel", hf.T5Config(vocab_size=200, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    )


def _wav2vec2() -> nn.Module:
    convolutions = {"conv_dim": (16, 16, 16), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3)}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    return _network(
        "Wav2Vec2Model", hf.Wav2Vec2Config(num_feat_extract_layers=3, **convolutions, **positions, **_SMALL)
    )


class _Recurrent(nn.Module):
    """A recurrent layer and a head; ONNX has the gates of both kinds in another order than PyTorch."""

    def __init__(self, kind: type[nn.GRU | nn.LSTM]) -> None:
        super().__init__()
        self.layer = kind(8, 24, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, 12, 5]."""
        answer: Tensor = self.head(self.layer(x)[0])
        return answer


_NO_CACHE: Final = {"use_cache": False}
_FIXED_SIZE: Final = {"interpolate_pos_encoding": False}
_MAP: Final = "height//32, width//32"

# all of different architecture, sorted by name
CLEAN: Final = (
    Subject(
        "bert",
        lambda: seeded(lambda: _network("BertModel", _text_config("BertConfig"))),
        MASKED_IDS,
        HIDDEN | POOLED,
        TEXT,
    ),
    Subject(
        "clip-text",
        lambda: seeded(lambda: _network("CLIPTextModel", _text_config("CLIPTextConfig", eos_token_id=199))),
        MASKED_IDS,
        HIDDEN | POOLED,
        TEXT,
    ),
    Subject(
        "convnext",
        lambda: seeded(_convnext),
        PIXELS,
        {"last_hidden_state": f"float32[batch, 48, {_MAP}]"},
        PICTURE,
    ),
    Subject(
        "dpt",
        lambda: seeded(_dpt),
        FIXED_PIXELS,
        {"predicted_depth": "float32[batch, 64, 64]"},
        BATCH,
    ),
    Subject(
        "gpt2",
        lambda: seeded(_gpt2),
        IDS,
        {"logits": "float32[batch, sequence, 200]"},
        TEXT,
        _NO_CACHE,
    ),
    Subject(
        "gru",
        lambda: seeded(lambda: _Recurrent(nn.GRU)),
        {"x": "float32[batch, 12, 8]"},
        {"y": "float32[batch, 12, 5]"},
        BATCH,
    ),
    Subject(
        "llama",
        lambda: seeded(
            lambda: _network("LlamaForCausalLM", _text_config("LlamaConfig", num_key_value_heads=1))
        ),
        IDS,
        {"logits": "float32[batch, sequence, 200]"},
        TEXT,
        _NO_CACHE,
    ),
    Subject(
        "lstm",
        lambda: seeded(lambda: _Recurrent(nn.LSTM)),
        {"x": "float32[batch, 12, 8]"},
        {"y": "float32[batch, 12, 5]"},
        BATCH,
    ),
    Subject(
        "regnet",
        lambda: seeded(_regnet),
        PIXELS,
        {"last_hidden_state": f"float32[batch, 64, {_MAP}]"},
        PICTURE,
    ),
    Subject("resnet", lambda: seeded(_resnet), PIXELS, {"logits": "float32[batch, 10]"}, PICTURE),
    Subject(
        "segformer",
        lambda: seeded(_segformer),
        PIXELS,
        {"logits": "float32[batch, 5, height//4, width//4]"},
        PICTURE,
    ),
    Subject(
        "swin",
        lambda: seeded(_swin),
        FIXED_PIXELS,
        {"last_hidden_state": "float32[batch, 64, 32]"} | POOLED,
        BATCH,
        _FIXED_SIZE,
    ),
    Subject(
        "swin2sr",
        lambda: seeded(_swin2sr),
        {"pixel_values": "float32[batch, 3, 16, 16]"},
        {"reconstruction": "float32[batch, 3, 32, 32]"},
        BATCH,
    ),
    Subject("t5-encoder", lambda: seeded(_t5), MASKED_IDS, HIDDEN, TEXT),
    Subject(
        "vit",
        lambda: seeded(
            lambda: _network("ViTForImageClassification", _picture_config("ViTConfig", num_labels=10))
        ),
        FIXED_PIXELS,
        {"logits": "float32[batch, 10]"},
        BATCH,
    ),
    Subject(
        "wav2vec2",
        lambda: seeded(_wav2vec2),
        {"input_values": "float32[batch, samples]"},
        {"last_hidden_state": "float32[batch, frames, 32]"},
        BATCH | {"samples": "400..2000:40"},
    ),
)


# ── subjects of the faults ──────────────────────────────────────────────────────────────────────────────
ENCODER_INPUTS: Final = {
    "input_ids": "int64[batch, sequence] 0..4999",
    "attention_mask": "int64[batch, sequence] 0..1",
}


def encoder() -> nn.Module:
    """Make a masked text encoder with a vocabulary that no set of cases uses up.

    Its weights are spread ten times wider than a fresh BERT's, so that attention and Gelu leave the part
    around zero where every form of them is the same: as in a trained network, and unlike `faint_encoder`.
    """
    return stirred(seeded(lambda: _network("BertModel", _encoder_config(initializer_range=0.2))))


def faint_encoder() -> nn.Module:
    """Make the same encoder with the weights that transformers draws: its Gelu sees little but zeros."""
    return stirred(seeded(lambda: _network("BertModel", _encoder_config())))


def _encoder_config(**more: float) -> Any:  # noqa: ANN401 -- as `_text_config`
    return _text_config("BertConfig", vocab_size=5000, layer_norm_eps=1e-5, **more)


def _vision() -> nn.Module:
    config = _picture_config("ViTConfig", num_labels=10, layer_norm_eps=1e-5, initializer_range=0.1)
    return stirred(seeded(lambda: _network("ViTForImageClassification", config)))


class _Dense(nn.Module):
    """Dense prediction: coarse features brought back to the size of the picture, then warped."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, pixel_values: Tensor, grid: Tensor) -> Tensor:
        """Return float32[batch, 2, height, width]."""
        coarse = torch.relu(self.down(pixel_values))
        fine = nn.functional.interpolate(coarse, scale_factor=4.0, mode="bilinear", align_corners=False)
        warped: Tensor = nn.functional.grid_sample(self.head(fine), grid, align_corners=False)
        return warped


ENCODER: Final = Subject("encoder", encoder, ENCODER_INPUTS, HIDDEN | POOLED, TEXT)
FAINT: Final = Subject("faint", faint_encoder, ENCODER_INPUTS, HIDDEN | POOLED, TEXT)
VISION: Final = Subject("vision", _vision, FIXED_PIXELS, {"logits": "float32[batch, 10]"}, BATCH)
DENSE: Final = Subject(
    "dense",
    lambda: seeded(_Dense),
    PIXELS | {"grid": "float32[batch, height, width, 2] -1..1"},
    {"warped": "float32[batch, 2, height, width]"},
    PICTURE,
)


# ── nets that answer the same to every input ────────────────────────────────────────────────────────────
class _BiasOnly(nn.Module):
    """The weight of the last layer is zero: a head that was never trained and starts there."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(16, 32)
        self.head = nn.Linear(32, 5)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, 5]."""
        answer: Tensor = self.head(torch.tanh(self.body(x)))
        return answer


class _DeadRelu(nn.Module):
    """Every unit is below zero for every input, as after a step that was too large."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(16, 32)
        self.head = nn.Linear(32, 5)
        nn.init.constant_(self.body.bias, -1e6)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, 5]."""
        answer: Tensor = self.head(torch.relu(self.body(x)))
        return answer


class _Saturated(nn.Module):
    """A softmax whose largest logit is far ahead: one-hot, whatever the input."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 5)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([1e6, 0.0, 0.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, 5]."""
        return torch.softmax(self.head(x), -1)


def _mobilevit() -> nn.Module:
    widths = {"hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 16, 16, 24, 24, 32, 96]}
    torch.manual_seed(0)
    config = hf.MobileViTConfig(image_size=64, num_attention_heads=2, **widths)
    return _network("MobileViTModel", config).eval()


def silent_subjects() -> tuple[Subject, ...]:
    """Return the networks that answer the same to every input, sorted by name."""
    small = {"x": "float32[batch, 16]"}
    answers = {"y": "float32[batch, 5]"}
    return (
        Subject("bias-only", lambda: seeded(_BiasOnly), small, answers, BATCH),
        Subject("dead-relu", lambda: seeded(_DeadRelu), small, answers, BATCH),
        Subject(
            "mobilevit",
            _mobilevit,
            {"pixel_values": "float32[batch, 3, 64, 64]"},
            {"last_hidden_state": "float32[batch, 96, 2, 2]"},
            BATCH,
        ),
        Subject("saturated-softmax", lambda: seeded(_Saturated), small, answers, BATCH),
    )
