"""Seeded BLIP checkpoints of a tiny size, as Hugging Face keeps them and as salesforce/BLIP does.

python -m tests.recipe.blip_folders BlipForConditionalGeneration FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
)

CLASSES: Final[dict[str, Any]] = {
    "BlipForConditionalGeneration": BlipForConditionalGeneration,
    "BlipForImageTextRetrieval": BlipForImageTextRetrieval,
    "BlipForQuestionAnswering": BlipForQuestionAnswering,
}
_LETTERS: Final = [chr(code) for code in range(ord("a"), ord("z") + 1)]
WORDS: Final = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *(".", ",", "?", "!", "'", "-"),
    *_LETTERS,
    *(f"##{letter}" for letter in _LETTERS),
    *("what", "colour", "is", "it", "the", "photo", "picture", "of", "second", "car", "and", "left"),
    *(
        "standing",
        "next",
        "to",
        "anybody",
        "sitting",
        "in",
        "or",
        "from",
        "two",
        "cats",
        "dog",
        "red",
        "blue",
    ),
]
BOS, SEP, PAD = len(WORDS), WORDS.index("[SEP]"), 0


def tiny_config(text_width: int = 32, n_layers: int = 2) -> BlipConfig:
    """Return a configuration with sizes that differ, so that mixed-up axes show."""
    return BlipConfig(
        vision_config={
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": n_layers,
            "num_attention_heads": 3,
            "image_size": 32,
            "patch_size": 8,
        },
        text_config={
            "hidden_size": text_width,
            "encoder_hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": n_layers,
            "num_attention_heads": 4,
            "vocab_size": len(WORDS) + 2,
            "max_position_embeddings": 64,
            "bos_token_id": BOS,
            "sep_token_id": SEP,
            "eos_token_id": SEP,
            "pad_token_id": PAD,
        },
        image_text_hidden_size=24,
    )


def varied(module: Any, seed: int = 0) -> Any:
    """Give a model weights with which its outputs vary: those that transformers draws fade to a constant."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                is_table = "embedding" in name and "patch" not in name
                weight.copy_(noise * (0.6 if is_table else (1.5 / weight[0].numel()) ** 0.5))
            elif "bias" in name:
                weight.copy_(noise * 0.05)
    return module.eval()


def tiny_model(architecture: str, seed: int = 0, n_layers: int = 2) -> Any:
    """Return a seeded model in eval mode."""
    # transformers' question answering attends to pictures and to questions with one width
    width = 48 if architecture == "BlipForQuestionAnswering" else 32
    return varied(CLASSES[architecture](tiny_config(width, n_layers)), seed)


def write_vocabulary(folder: Path) -> None:
    """Write ``vocab.txt``."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")


def write_bert_vocabulary(folder: Path) -> None:
    """Write a ``vocab.txt`` with the number of words and the marks of ``bert-base-uncased``."""
    words = [f"[unused{i}]" for i in range(30522)]
    words[0], words[100:104] = "[PAD]", WORDS[1:5]
    words[1000 : 1000 + len(WORDS) - 5] = WORDS[5:]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def write_folder(architecture: str, folder: Path, seed: int = 0, n_layers: int = 2) -> Path:
    """Write config.json, model.safetensors, vocab.txt and preprocessor_config.json."""
    tiny_model(architecture, seed, n_layers).save_pretrained(folder)
    write_vocabulary(folder)
    words = {"size": {"height": 32, "width": 32}, "image_processor_type": "BlipImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(words), encoding="utf-8")
    return folder


if __name__ == "__main__":
    write_folder(sys.argv[1], Path(sys.argv[2]))
