"""A tiny BLIP that was trained for some seconds to say what it sees, so that its choices have a margin.

Seeded weights choose between nearly equal scores: rounding alone changes one of thirty of their choices, and
whether 95 % of them stay says nothing about a method.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image
from transformers import BlipForConditionalGeneration

from tests.recipe.blip_folders import BOS, SEP, WORDS, tiny_config, write_vocabulary

if TYPE_CHECKING:
    from pathlib import Path

GROUNDS: Final = {"red": (220, 40, 40), "blue": (40, 40, 220), "the": (40, 200, 40), "it": (230, 230, 40)}
SQUARES: Final = {"cats": (250, 250, 250), "dog": (5, 5, 5), "car": (250, 20, 250), "photo": (20, 250, 250)}
PLACES: Final = {"left": (0, 0), "next": (0, 16), "standing": (16, 0), "sitting": (16, 16)}
_N_STEPS: Final = 300


def picture(number: int) -> tuple[np.ndarray, list[str]]:
    """Draw a square on a ground, both noisy; return it with the words for both and for the place."""
    random = np.random.default_rng(number)
    words = [str(random.choice(list(table))) for table in (GROUNDS, SQUARES, PLACES)]
    pixels = np.empty((32, 32, 3), np.int64)
    pixels[:] = GROUNDS[words[0]]
    top, left = PLACES[words[2]]
    pixels[top : top + 16, left : left + 16] = SQUARES[words[1]]
    noisy = pixels + random.integers(-30, 31, pixels.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), words


def write_pictures(folder: Path, n: int, first: int = 10_000) -> Path:
    """Write pictures that the training did not see."""
    folder.mkdir()
    for number in range(first, first + n):
        Image.fromarray(picture(number)[0]).save(folder / f"{number}.png")
    return folder


def write_trained(folder: Path) -> Path:
    """Train, and write the folder as Hugging Face keeps it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = BlipForConditionalGeneration(tiny_config(n_layers=1)).train()
    rate = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(_N_STEPS):
        pixels, tokens = _batch(range(16 * step, 16 * (step + 1)))
        labels = tokens.masked_fill(tokens == BOS, -100)
        loss = model(pixel_values=pixels, input_ids=tokens, labels=labels).loss
        rate.zero_grad()
        loss.backward()
        rate.step()
    model.eval().save_pretrained(folder)
    write_vocabulary(folder)
    words = {"size": {"height": 32, "width": 32}, "image_processor_type": "BlipImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(words), encoding="utf-8")
    return folder


def _batch(numbers: range) -> tuple[Any, Any]:
    mean = np.array([0.48145466, 0.4578275, 0.40821073])  # the processor's own
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    drawn = [picture(number) for number in numbers]
    values = np.stack([((pixels / 255 - mean) / std).transpose(2, 0, 1) for pixels, _ in drawn])
    tokens = [[BOS, *(WORDS.index(word) for word in words), SEP] for _, words in drawn]
    return torch.tensor(values, dtype=torch.float32), torch.tensor(tokens)
