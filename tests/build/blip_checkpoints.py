"""Seeded BLIP checkpoints that write different words about different pictures, tiny and of the base size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import BlipConfig

from tests.recipe.blip_folders import CLASSES, WORDS, tiny_config, varied, write_vocabulary

if TYPE_CHECKING:
    from pathlib import Path

_N_UNUSED: Final = 30522 - len(WORDS)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a model is, and what is asked of it.

    Attributes:
        name: ``tiny`` or ``base``.
        end_bias: What the end token's score is raised by, so that some texts end early.
        output_gain: What the outputs of the text layers are multiplied by.
        max_new_tokens: Writing ends after so many.
        max_cases: With so many the build proves each part.
        n_spoiled: So many pictures show that a planted mistake is seen.
    """

    name: str
    end_bias: float
    output_gain: float
    max_new_tokens: int
    max_cases: int
    n_spoiled: int


TINY: Final = Size("tiny", 2.0, 0.5, 20, 4, 8)
BASE: Final = Size("base", 30.0, 0.3, 12, 4, 8)


def write_checkpoint(architecture: str, size: Size, folder: Path) -> Path:
    """Write config.json, model.safetensors and vocab.txt, as Hugging Face keeps them."""
    width = 48 if architecture == "BlipForQuestionAnswering" else 32
    config = tiny_config(width) if size is TINY else _base_config()
    model = varied(CLASSES[architecture](config))
    _sharpen(model, size)
    model.save_pretrained(folder)
    if size is TINY:
        write_vocabulary(folder)
    else:
        _write_long_vocabulary(folder)
    return folder


def _base_config() -> BlipConfig:
    """As published: 12 layers of 768, pictures of 384 pixels."""
    end = WORDS.index("[SEP]")
    marks = {"bos_token_id": 30522, "sep_token_id": end, "eos_token_id": end, "pad_token_id": 0}
    return BlipConfig(
        vision_config={"image_size": 384, "num_attention_heads": 12},
        text_config={"num_attention_heads": 12, **marks},
    )


def _write_long_vocabulary(folder: Path) -> None:
    """Give every token of the network a word, as ``bert-base-uncased`` does."""
    words = [*WORDS, *(f"[unused{i}]" for i in range(_N_UNUSED))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def _sharpen(model: Any, size: Size) -> None:
    """Let the text layers look at single places, and add little to what they read.

    With the plain draws of `varied` attention is a mean over all places: the same for every token, so that
    a picture gives one word again and again, and no shift of the positions would be seen.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(_gain(name, size))
        if hasattr(model, "text_decoder"):
            end = model.config.text_config.sep_token_id
            model.text_decoder.cls.predictions.bias[end] += size.end_bias


def _gain(name: str, size: Size) -> float:
    """Return what a matrix is multiplied by."""
    if "patch_embedding" in name:
        return 2
    if re.search(r"^text_.*self\.(query|key)", name):
        return 2  # above, texts become still more varied, and rounding errors larger: ten times at 4
    if re.search(r"^text_.*crossattention\.output\.dense", name):
        return 0.7 * size.output_gain
    return size.output_gain if re.search(r"^text_.*output\.dense", name) else 1
