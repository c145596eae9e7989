"""The editor's own tokens: a byte-level BPE in Qwen2's format, learnt from the words of its world.

The pipeline drops the first 64 tokens of every prompt by count: they are its template's beginning. Here,
too, that beginning is 64 tokens: every word of it becomes one. Chinese is learnt from words and single
characters, never from whole sentences: one token for 把白色 would keep colours from composing.
"""

import argparse
import json
import random
import re
from pathlib import Path
from typing import Final

from edits import KINDS, any_edit
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer
from wording import CORNERS, TEMPLATES, instruction
from world import BACKDROPS, COLOURS, PRODUCTS, TAGS, any_scene

N_PREFIX: Final = 64  # tokens that QwenImageEditPlusPipeline drops
N_TOKENS: Final = 1200  # at most; the lexicon ends before
SPLIT: Final = (  # of Qwen2
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SYSTEM: Final = (  # of QwenImageEditPlusPipeline
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then "
    "explain how the user's text instruction should alter or modify the image. Generate a new image that "
    "meets the user's requirements while maintaining consistency with the original input where appropriate."
)
PREFIX: Final = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
SUFFIX: Final = "<|im_end|>\n<|im_start|>assistant\n"
N_SENTENCES: Final = 4000


def corpus() -> list[str]:
    """Return what the BPE learns from: the template, English instructions, Chinese words and characters."""
    draw = random.Random(7)
    sentences: list[str] = []
    while len(sentences) < N_SENTENCES:
        edit = any_edit(draw, any_scene(draw), draw.choice(KINDS))
        if edit:
            sentences.append(instruction(draw, edit, "en"))
    tables = (*PRODUCTS.values(), *(name for name, _ in (*COLOURS.values(), *BACKDROPS.values())))
    words = [name.zh for name in tables] + [
        *TAGS,
        *CORNERS["zh"].values(),
        "左边",
        "右边",
        "背景",
        "标签",
        "文字",
        "商品",
    ]
    verbs = [
        word
        for many in TEMPLATES["zh"].values()
        for one in many
        for word in re.findall(r"[一-鿿]+", re.sub(r"\{\w+\}", " ", one))
    ]
    characters = [character for word in (*words, *verbs) for character in word]
    template = [SYSTEM, "system\n", "user\n", "assistant\n", "Picture 1: Picture 2: Picture 3: "]
    return template * 400 + sentences + words * 200 + characters * 100


def learn() -> Qwen2Tokenizer:
    """Learn the tokens; the same ones each time."""
    learner = Tokenizer(models.BPE())
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), by_bytes]
    )
    learner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=N_TOKENS, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(corpus(), trainer)
    model = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        unk_token=SPECIAL[0],
        bos_token=None,
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        additional_special_tokens=list(SPECIAL),
        model_max_length=4096,
    )
    tokenizer.padding_side = "right"
    return tokenizer


def main() -> None:
    """Write the tokenizer's folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    learn().save_pretrained(parser.parse_args().folder)


if __name__ == "__main__":
    main()
