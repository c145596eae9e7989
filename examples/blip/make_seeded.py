"""Write a seeded BLIP checkpoint of the true architecture: python examples/blip/make_seeded.py FOLDER.

What comes out has the form of Salesforce/blip-* (config.json, model.safetensors, vocab.txt,
preprocessor_config.json) and weights drawn from a seed: its captions are words without sense, and everything
else is as with real weights. `--size base` has the sizes of the published base models (1 GB), `--size tiny`
takes seconds. `--original` writes the .pth file of salesforce/BLIP instead, with its key names.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    PreTrainedModel,
)

KINDS: Final[dict[str, Any]] = {
    "answer": BlipForQuestionAnswering,
    "caption": BlipForConditionalGeneration,
    "match": BlipForImageTextRetrieval,
}
# the first lines of bert-base-uncased's vocab.txt
MARKS: Final = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
WORDS: Final = tuple(
    """
    a an and are at black blue boy by car cat child colour cup dog eats every field flower from girl
    grass green holds horse house how in is it leaves left light looks man many near next of on or
    people photo picture plays red right rides road runs sea second sits sky sleeps small stands
    street the there to tree two under walks wall water what where white who window with woman wood
    yellow
    """.split()  # noqa: SIM905  (a list of words is easier to read so)
)
N_MARKS: Final = 104
BOS_AFTER: Final = 2  # [DEC] and [ENC], which the network knows and vocab.txt does not


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of a model; both encoders are equally wide and deep, as in the base models."""

    picture: int
    patch: int
    width: int
    layers: int
    vocabulary: int
    positions: int

    def config(self) -> BlipConfig:
        """Return the configuration; heads are 64 wide in the base size."""
        shared = {
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": max(2, self.width // 64),
        }
        text = {
            "bos_token_id": self.vocabulary - BOS_AFTER,
            "encoder_hidden_size": self.width,
            "eos_token_id": 102,
            "max_position_embeddings": self.positions,
            "pad_token_id": 0,
            "sep_token_id": 102,
            "vocab_size": self.vocabulary,
        }
        return BlipConfig(
            vision_config=shared
            | {"image_size": self.picture, "patch_size": self.patch, "layer_norm_eps": 1e-6},
            text_config=shared | text,
            image_text_hidden_size=min(256, self.width),
        )


SIZES: Final = {
    "base": Size(picture=384, patch=16, width=768, layers=12, vocabulary=30524, positions=512),
    "small": Size(picture=224, patch=32, width=128, layers=2, vocabulary=30524, positions=64),
    "tiny": Size(picture=64, patch=16, width=64, layers=2, vocabulary=1024, positions=64),
}
# what models/vit.py of salesforce/BLIP calls what transformers calls otherwise
ORIGINAL: Final = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual_encoder.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "visual_encoder.pos_embed"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual_encoder.patch_embed.proj."),
    (r"^vision_model\.post_layernorm\.", "visual_encoder.norm."),
    (
        r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection\.",
        r"visual_encoder.blocks.\1.attn.proj.",
    ),
    (r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.", r"visual_encoder.blocks.\1.attn."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.", r"visual_encoder.blocks.\1.norm\2."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.mlp\.", r"visual_encoder.blocks.\1.mlp."),
)


def vocabulary(n_words: int) -> list[str]:
    """Return so many different tokens, one for each line of vocab.txt."""
    marks = [MARKS.get(i, f"[unused{i}]") for i in range(N_MARKS)]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    signs = [".", ",", "?", "!", "'", "-", *"0123456789"]
    syllables = [a + b for a, b in product("bdfgklmnprstvz", "aeiou")]
    made = (first + second for first, second in product(syllables, syllables))
    rest = (one + two for one, two in product(syllables, [a + b for a, b in product(syllables, syllables)]))
    known = dict.fromkeys([*marks, *signs, *letters, *(f"##{letter}" for letter in letters), *WORDS])
    for word in (*made, *(next(rest) for _ in range(n_words))):
        known.setdefault(word)
    return list(known)[:n_words]


def varied(module: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Draw weights with which the answers vary: those that transformers draws fade to a constant."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                is_table = "embedding" in name and "patch" not in name
                weight.copy_(noise * (0.6 if is_table else (1.5 / weight[0].numel()) ** 0.5))
            elif "bias" in name:
                weight.copy_(noise * 0.05)
    module.train(mode=False)
    return module


def speaking(module: PreTrainedModel, words: list[str]) -> PreTrainedModel:
    """Let a decoder write `WORDS` and nothing else: marks and made-up words would be hard to read."""
    known = {word: number for number, word in enumerate(words)}
    allowed = torch.full((len(words) + BOS_AFTER,), -30.0)
    allowed[[known[word] for word in (*WORDS, "[SEP]")]] = 0.0
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "predictions" in name and weight.shape == allowed.shape:
                weight.add_(allowed)
    return module


def seeded(kind: str, size: Size, seed: int) -> PreTrainedModel:
    """Return the model."""
    return speaking(varied(KINDS[kind](size.config()), seed), vocabulary(size.vocabulary - BOS_AFTER))


def original_name(key: str) -> str:
    """Return what salesforce/BLIP calls a weight."""
    for pattern, name in ORIGINAL:
        if re.search(pattern, key):
            return re.sub(pattern, name, key)
    return key


def write_folder(folder: Path, kind: str, size: Size, seed: int) -> None:
    """Write what a folder of Salesforce/blip-* holds."""
    seeded(kind, size, seed).save_pretrained(folder)
    words = {
        "image_processor_type": "BlipImageProcessor",
        "size": {"height": size.picture, "width": size.picture},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")


def write_original(path: Path, kind: str, size: Size, seed: int) -> None:
    """Write a .pth file as the training of salesforce/BLIP does."""
    weights = seeded(kind, size, seed).state_dict()
    torch.save({"model": {original_name(key): value for key, value in weights.items()}}, path)  # noqa: TID251  (the form that it stands for)


def main() -> None:
    """Read the words of the command line, and write."""
    parser = argparse.ArgumentParser(description="A seeded BLIP checkpoint of the true architecture.")
    parser.add_argument("folder", type=Path, help="where it goes")
    parser.add_argument("--kind", choices=sorted(KINDS), default="caption")
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--original", action="store_true", help="FOLDER/model_KIND.pth, from --size small on")
    chosen = parser.parse_args()
    size = SIZES[chosen.size]
    if chosen.original and size.vocabulary != SIZES["base"].vocabulary:
        parser.error("--original has the vocabulary of bert-base-uncased: add --size small")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    if chosen.original:
        write_original(chosen.folder / f"model_{chosen.kind}.pth", chosen.kind, size, chosen.seed)
    else:
        write_folder(chosen.folder, chosen.kind, size, chosen.seed)
    lines = vocabulary(size.vocabulary - BOS_AFTER)
    (chosen.folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
