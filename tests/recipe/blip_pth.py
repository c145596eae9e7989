"""Checkpoints with the key names of salesforce/BLIP, made of seeded models of transformers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import BlipConfig

from tests.recipe.blip_folders import CLASSES, varied

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

VOCABULARY: Final = 30524  # bert-base-uncased, [DEC] and [ENC]
# what models/vit.py of the repository calls it, written by hand; models/med.py has transformers' names
VISION: Final = {
    r"vision_model\.embeddings\.class_embedding": "visual_encoder.cls_token",
    r"vision_model\.embeddings\.position_embedding": "visual_encoder.pos_embed",
    r"vision_model\.embeddings\.patch_embedding\.(weight|bias)": r"visual_encoder.patch_embed.proj.\1",
    r"vision_model\.post_layernorm\.(weight|bias)": r"visual_encoder.norm.\1",
    r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv\.(.*)": r"visual_encoder.blocks.\1.attn.qkv.\2",
    r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection\.(.*)": (
        r"visual_encoder.blocks.\1.attn.proj.\2"
    ),
    r"vision_model\.encoder\.layers\.(\d+)\.layer_norm1\.(.*)": r"visual_encoder.blocks.\1.norm1.\2",
    r"vision_model\.encoder\.layers\.(\d+)\.layer_norm2\.(.*)": r"visual_encoder.blocks.\1.norm2.\2",
    r"vision_model\.encoder\.layers\.(\d+)\.mlp\.fc([12])\.(.*)": r"visual_encoder.blocks.\1.mlp.fc\2.\3",
}


def original_config(width: int = 128, picture: int = 224) -> BlipConfig:
    """Return a small configuration of the original's form: heads of 64, vision norms of 1e-6."""
    return BlipConfig(
        vision_config={
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": width // 64,
            "image_size": picture,
            "patch_size": 32,
            "layer_norm_eps": 1e-6,
        },
        text_config={
            "hidden_size": 128,
            "encoder_hidden_size": width,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 40,
            "bos_token_id": 30522,
            "sep_token_id": 102,
            "pad_token_id": 0,
        },
        image_text_hidden_size=24,
    )


def original_model(architecture: str, config: BlipConfig | None = None, seed: int = 0) -> Any:
    """Return a seeded model in eval mode."""
    return varied(CLASSES[architecture](config or original_config()), seed)


def original_weights(module: Any) -> dict[str, Tensor]:
    """Return its weights under the original's names, with the buffers that the original has."""
    found: dict[str, Tensor] = {}
    for key, value in module.state_dict().items():
        pattern = next((p for p in VISION if re.fullmatch(p, key)), None)
        found[re.sub(pattern, VISION[pattern], key) if pattern else key] = value.clone()
    for name in ("text_encoder", "text_decoder.bert"):
        if f"{name}.embeddings.word_embeddings.weight" in found:
            found[f"{name}.embeddings.position_ids"] = torch.arange(40)[None]
    return found


def save(path: Path, content: Any) -> Path:
    """Write a file as the original's training does."""
    torch.save(content, path)  # noqa: TID251  (what users have is read)
    return path


def with_training(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add what training keeps in a retrieval checkpoint: momentum copies, queues, the temperature."""
    copies = {
        re.sub(r"^(visual_encoder|text_encoder|vision_proj|text_proj)\.", r"\1_m.", key): value
        for key, value in weights.items()
    }
    queues = {"image_queue": torch.zeros(24, 5), "text_queue": torch.zeros(24, 5), "temp": torch.tensor(0.07)}
    pointers = {"ptr_queue": torch.zeros(1).long(), "idx_queue": torch.zeros(1, 5).long()}
    return copies | queues | pointers | weights
