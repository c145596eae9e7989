"""Seeded Qwen-Image-Edit pipelines of a tiny and of a middle size, as diffusers keeps them in folders.

python -m tests.recipe.qwen_folders tiny FOLDER
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

PLUS: Final = "QwenImageEditPlusPipeline"
SPECIAL: Final = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
TEMPLATE: Final = (
    "system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a "
    "new image that meets the user's requirements while maintaining consistency with the original input "
    "where appropriate.\nuser\nPicture 1:\nassistant\n"
)
PROCESSOR: Final = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "merge_size": 2,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "min_pixels": 3136,
    "max_pixels": 12845056,
}
SCHEDULE: Final = {
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": 0.02,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What differs between pipelines; the widths of one differ, so that mixed-up axes show.

    Attributes:
        text: Width, layers, heads, and heads of keys and values of the language model.
        vision: Width and layers of the vision encoder.
        denoiser: Blocks and heads of the transformer.
        rope: Channels of a head for time, height and width.
        vae: Width and blocks of each level of the autoencoder.
    """

    text: tuple[int, int, int, int]
    vision: tuple[int, int]
    denoiser: tuple[int, int]
    rope: tuple[int, int, int]
    vae: tuple[int, int]


SIZES: Final = {
    "tiny": Sizes((64, 2, 4, 2), (48, 2), (2, 2), (8, 12, 12), (8, 1)),
    "mid": Sizes((512, 6, 8, 4), (256, 8), (6, 6), (16, 56, 56), (32, 2)),
}


@cache
def make_tokenizer() -> Qwen2Tokenizer:
    """Return a tokenizer that knows every word of the template: its beginning has 64 tokens, as published."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEMPLATE] * 3, trainer)
    found = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in found["merges"]]
    return Qwen2Tokenizer(vocab=found["vocab"], merges=merges, extra_special_tokens=list(SPECIAL[1:]))


def varied(module: Any, seed: int = 0) -> Any:
    """Give a model weights with which its outputs vary: those that are drawn fade to a constant."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "embed_tokens" in name:
                weight.copy_(noise)
            elif weight.ndim > 1 and "gamma" not in name:
                weight.copy_(noise * _gain(name) / _fan_in(weight) ** 0.5)
            elif "bias" in name:
                weight.copy_(noise * 0.05)
            else:
                weight.copy_(1 + noise.view(weight.shape) * 0.1)
    return module.eval()


def _fan_in(weight: torch.Tensor) -> float:
    # of a causal kernel the last tap alone sees the only frame
    return weight[0].numel() / (weight.shape[2] if weight.ndim == 5 else 1)


def _gain(name: str) -> float:
    if any(word in name for word in ("to_q.", "to_k.", "add_q_proj", "add_k_proj")):
        return 2.0  # or attention is nearly a mean, and the text does not show
    return 0.35 if "conv_out" in name else 1.0


def make_text_encoder(sizes: Sizes, seed: int = 0) -> Any:
    """Return Qwen2.5-VL."""
    (width, layers, heads, keys), (vision_width, vision_layers) = sizes.text, sizes.vision
    tokenizer, half = make_tokenizer(), width // heads // 2
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in SPECIAL}
    side = 3 * half // 8
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": width,
            "intermediate_size": width * 2,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": keys,
            "vocab_size": len(tokenizer),
            "rope_parameters": {
                "mrope_section": [half - 2 * side, side, side],
                "rope_type": "default",
                "rope_theta": 1e6,
            },
            "max_position_embeddings": 32768,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_width,
            "intermediate_size": vision_width * 2,
            "num_heads": 4,
            "out_hidden_size": width,
            "fullatt_block_indexes": list(range(1, vision_layers, max(vision_layers // 2, 1))),
            "window_size": 112,
            "patch_size": 14,
            "spatial_merge_size": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return varied(Qwen2_5_VLForConditionalGeneration(config), seed)


def make_transformer(sizes: Sizes, seed: int = 1, **words: Any) -> Any:
    """Return the denoiser."""
    blocks, heads = sizes.denoiser
    config = {
        "patch_size": 2,
        "in_channels": 64,
        "out_channels": 16,
        "num_layers": blocks,
        "attention_head_dim": sum(sizes.rope),
        "num_attention_heads": heads,
        "joint_attention_dim": sizes.text[0],
        "axes_dims_rope": sizes.rope,
    }
    return varied(QwenImageTransformer2DModel(**(config | words)), seed)


def make_vae(sizes: Sizes, seed: int = 2) -> Any:
    """Return the autoencoder."""
    width, blocks = sizes.vae
    return varied(AutoencoderKLQwenImage(base_dim=width, z_dim=16, num_res_blocks=blocks), seed)


def write_folder(folder: Path, size: str = "tiny", **words: Any) -> Path:
    """Write what ``save_pretrained`` of the pipeline writes; ``words`` are further ones of the denoiser."""
    sizes = SIZES[size]
    make_text_encoder(sizes).save_pretrained(folder / "text_encoder")
    make_transformer(sizes, **words).save_pretrained(folder / "transformer")
    make_vae(sizes).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    for name in ("tokenizer", "processor"):
        make_tokenizer().save_pretrained(folder / name)
    _write(folder / "processor" / "preprocessor_config.json", PROCESSOR)
    index = {
        "processor": ["transformers", "Qwen2VLProcessor"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "transformer": ["diffusers", "QwenImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLQwenImage"],
    }
    _write(folder / "model_index.json", {"_class_name": PLUS, "_diffusers_version": "0.36.0.dev0", **index})
    return folder


def _write(path: Path, words: dict[str, Any]) -> None:
    path.write_text(json.dumps(words, indent=2), encoding="utf-8")


if __name__ == "__main__":
    write_folder(Path(sys.argv[2]), sys.argv[1])
