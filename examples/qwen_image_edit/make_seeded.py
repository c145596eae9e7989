"""Write a seeded Qwen-Image-Edit folder: python examples/qwen_image_edit/make_seeded.py FOLDER.

What comes out has the form of Qwen/Qwen-Image-Edit-2509, as diffusers keeps it, and weights drawn from a
seed: its pictures mean nothing, and everything else is as with real weights. ``--size published`` writes the
configurations and the indexes of the published size and no weights (0.4 MB): what `anyport plan` needs.
``--lora`` adds a LoRA for the transformer, in the form of Qwen-Image-Lightning.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
)

diffusers: Any = import_module("diffusers")  # its classes have no types
Network = Any  # PreTrainedModel of transformers, or ModelMixin of diffusers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MARKS: Final = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
# every word of it becomes a token, so that its beginning has 64 of them, as with the published tokenizer
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
INDEX: Final = {
    "_class_name": "QwenImageEditPlusPipeline",
    "processor": ["transformers", "Qwen2VLProcessor"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "QwenImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLQwenImage"],
}
RANK: Final = 4
SHARD_BYTES: Final = 10_000_000_000
STORED_BYTES: Final = 2  # the published weights are bfloat16


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of a pipeline.

    Attributes:
        text: Width, inner width, layers, heads, and heads of keys and values of the language model.
        vision: Width, inner width, layers and heads of the vision encoder.
        whole: Layers of the vision encoder that look beyond windows.
        denoiser: Blocks and heads of the transformer.
        rope: Channels of a head for time, height and width.
        vae: Width and blocks of each level of the autoencoder.
        n_tokens: Rows of the table of words; those of the tokenizer if absent.
    """

    text: tuple[int, int, int, int, int]
    vision: tuple[int, int, int, int]
    whole: tuple[int, ...]
    denoiser: tuple[int, int]
    rope: tuple[int, int, int]
    vae: tuple[int, int]
    n_tokens: int | None = None


TINY: Final = Size((64, 128, 2, 4, 2), (48, 96, 2, 4), (1,), (2, 2), (8, 12, 12), (8, 1))
PUBLISHED: Final = Size(
    (3584, 18944, 28, 28, 4),
    (1280, 3420, 32, 16),
    (7, 15, 23, 31),
    (60, 24),
    (16, 56, 56),
    (96, 2),
    n_tokens=152064,
)


def tokenizer() -> Qwen2Tokenizer:
    """Return a tokenizer that knows the words of the template."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([TEMPLATE] * 3, trainer)
    found = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(merge) for merge in found["merges"]]
    return Qwen2Tokenizer(vocab=found["vocab"], merges=merges, extra_special_tokens=list(MARKS[1:]))


def text_encoder(size: Size) -> Network:
    """Return Qwen2.5-VL."""
    words, (width, inner, layers, heads, keys) = tokenizer(), size.text
    vision_width, vision_inner, vision_layers, vision_heads = size.vision
    ids: dict[str, Any] = {mark: words.convert_tokens_to_ids(mark) for mark in MARKS}
    half = width // heads // 2
    side = 3 * half // 8  # 24 of 64 channels for height, and for width
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": keys,
            "vocab_size": size.n_tokens or len(words),
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
            "intermediate_size": vision_inner,
            "num_heads": vision_heads,
            "out_hidden_size": width,
            "fullatt_block_indexes": list(size.whole),
            "window_size": 112,
            "patch_size": 14,
            "spatial_merge_size": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def transformer(size: Size) -> Network:
    """Return the denoiser."""
    blocks, heads = size.denoiser
    return diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=blocks,
        attention_head_dim=sum(size.rope),
        num_attention_heads=heads,
        joint_attention_dim=size.text[0],
        axes_dims_rope=size.rope,
    )


def vae(size: Size) -> Network:
    """Return the autoencoder."""
    width, blocks = size.vae
    return diffusers.AutoencoderKLQwenImage(base_dim=width, z_dim=16, num_res_blocks=blocks)


COMPONENTS: Final[Mapping[str, Callable[[Size], Network]]] = {
    "text_encoder": text_encoder,
    "transformer": transformer,
    "vae": vae,
}


def varied(module: Network, seed: int) -> Network:
    """Draw weights with which the pictures vary: those that are drawn otherwise fade to a constant."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "embed_tokens" in name:
                weight.copy_(noise)
            elif weight.ndim > 1 and "gamma" not in name:
                weight.copy_(noise * gain(name) / fan_in(weight) ** 0.5)
            elif "bias" in name:
                weight.copy_(noise * 0.05)
            else:
                weight.copy_(1 + noise.view(weight.shape) * 0.1)
    module.eval()
    return module


def fan_in(weight: torch.Tensor) -> float:
    """Return how many numbers a result is made of; of a causal kernel the last tap alone sees the frame."""
    is_causal = weight.ndim == 5
    return weight[0].numel() / (weight.shape[2] if is_causal else 1)


def gain(name: str) -> float:
    """Return how much larger weights are: attention must not be a mean, or the text does not show."""
    if any(word in name for word in ("to_q.", "to_k.", "add_q_proj", "add_k_proj")):
        return 2.0
    return 0.35 if "conv_out" in name else 1.0


def write_words(folder: Path) -> None:
    """Write everything but the networks."""
    diffusers.FlowMatchEulerDiscreteScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    for name in ("tokenizer", "processor"):
        tokenizer().save_pretrained(folder / name)
    write_json(folder / "processor" / "preprocessor_config.json", PROCESSOR)
    write_json(folder / "model_index.json", INDEX)


def write_seeded(folder: Path, size: Size, seed: int) -> None:
    """Write a whole folder."""
    for number, (name, make) in enumerate(COMPONENTS.items()):
        varied(make(size), seed + number).save_pretrained(folder / name)
    write_words(folder)


def write_outline(folder: Path, size: Size) -> None:
    """Write configurations and indexes: what `hf download --exclude '*.safetensors'` leaves.

    The published autoencoder is one file, which has no index.
    """
    for name, make in COMPONENTS.items():
        with torch.device("meta"):
            module = make(size)
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        if isinstance(module, PreTrainedModel):
            module.config.save_pretrained(place)
        else:
            module.save_config(place)
        if name != "vae":
            stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
            write_json(place / f"{stem}.safetensors.index.json", index_of(module.state_dict(), stem))
    write_words(folder)


def index_of(weights: dict[str, torch.Tensor], stem: str) -> dict[str, Any]:
    """Return the index of a checkpoint in shards."""
    sizes = {name: weight.numel() * STORED_BYTES for name, weight in weights.items()}
    total, before, places = sum(sizes.values()), 0, {}
    n_shards = -(-total // SHARD_BYTES)
    for name, size in sizes.items():
        places[name] = f"{stem}-{before // SHARD_BYTES + 1:05d}-of-{n_shards:05d}.safetensors"
        before += size
    return {"metadata": {"total_size": total}, "weight_map": places}


def write_lora(path: Path, size: Size, seed: int) -> None:
    """Write a LoRA for the attention of every block."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        network = transformer(size)
    weights = {}
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Linear) and ".attn." in name:
            weights[f"{name}.lora_down.weight"] = torch.randn(RANK, layer.in_features, generator=generator)
            weights[f"{name}.lora_up.weight"] = torch.randn(layer.out_features, RANK, generator=generator)
            weights[f"{name}.alpha"] = torch.tensor(0.1)
    save_file(weights, path)


def write_json(path: Path, words: dict[str, Any]) -> None:
    """Write settings."""
    path.write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the words of the command line, and write."""
    parser = argparse.ArgumentParser(description="A seeded Qwen-Image-Edit folder.")
    parser.add_argument("folder", type=Path, help="where it goes")
    parser.add_argument("--size", choices=("tiny", "published"), default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lora", type=Path, metavar="FILE.safetensors", help="write a LoRA, too")
    chosen = parser.parse_args()
    diffusers.utils.logging.disable_progress_bar()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    size = PUBLISHED if chosen.size == "published" else TINY
    if chosen.size == "published":
        write_outline(chosen.folder, size)
    else:
        write_seeded(chosen.folder, size, chosen.seed)
    if chosen.lora is not None:
        write_lora(chosen.lora, size, chosen.seed)


if __name__ == "__main__":
    main()
