"""The cases that matter for BLIP: pictures and texts on their way through the parts, as a task sends them.

Batches of 1 to 3, texts of mixed lengths (one of them empty, one long), prompts padded at the left and
encoder texts padded at the right, the decoder with an empty past and with one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image

from anyport.cases import Uniform, make_array
from anyport.recipe.blip_assets import open_tokenizer
from anyport.task.picture_settings import PictureSettings, fit_picture, pixel_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyport.recipe.part import Part

Feeds = dict[str, np.ndarray]

_PICTURES: Final = ((1, 1), (97, 240), (480, 320))  # heights and widths
_TEXTS: Final = (
    "what colour is the second car from the left, and is anybody sitting in it, or standing next to it?",
    "a photo of",
    "",
)


def with_cases(parts: tuple[Part, ...], settings: Mapping[str, Any], tokenizer: bytes) -> tuple[Part, ...]:
    """Return the parts with their cases, which are made when they are asked for.

    Args:
        parts: Of one model.
        settings: Of its task.
        tokenizer: The content of its ``tokenizer.json``.
    """
    journey = _Journey({part.name: part for part in parts}, settings, tokenizer)
    return tuple(replace(part, given=partial(journey.cases, part.name)) for part in parts)


class _Journey:
    """The parts fed one after the other, each with what the ones before it answered."""

    def __init__(self, parts: Mapping[str, Part], settings: Mapping[str, Any], tokenizer: bytes) -> None:
        self._parts = parts
        self._settings = settings
        self._tokenizer = tokenizer
        self._cases: Callable[[], Mapping[str, list[Feeds]]] = cache(self._all_cases)

    def cases(self, part: str) -> list[Feeds]:
        """Return the cases of one part."""
        return self._cases()[part]

    def _all_cases(self) -> dict[str, list[Feeds]]:
        pictures = self._pictures()
        found: dict[str, list[Feeds]] = {
            "vision_encoder": [{"pixel_values": pictures[:1]}, {"pixel_values": pictures}]
        }
        embeds = self._run("vision_encoder", found["vision_encoder"][1])["image_embeds"]
        texts = self._encoder_texts()
        for name in ("text_encoder", "multimodal_encoder", "question_encoder"):
            if name in self._parts:
                feeds = texts if name == "text_encoder" else texts | {"image_embeds": embeds}
                found[name] = [{key: array[:1] for key, array in feeds.items()}, feeds]
        if "text_decoder" in self._parts:
            found |= self._decoding(found, embeds)
        else:
            found |= self._heads(found, embeds)
        return found

    def _heads(self, found: Mapping[str, list[Feeds]], embeds: np.ndarray) -> dict[str, list[Feeds]]:
        text = self._run("text_encoder", found["text_encoder"][1])["text_embeds"]
        both = self._run("multimodal_encoder", found["multimodal_encoder"][1])["multimodal_embeds"]
        return {
            "itm_head": [{"multimodal_state": both[:, 0]}],
            "image_projection": [{"image_state": embeds[:, 0]}],
            "text_projection": [{"text_state": text[:, 0]}],
        }

    def _decoding(self, found: Mapping[str, list[Feeds]], embeds: np.ndarray) -> dict[str, list[Feeds]]:
        """Return the cases of the decoder: a prompt, and the step after it."""
        states, mask = embeds, np.ones(embeds.shape[:2], np.int64)
        if "question_encoder" in self._parts:
            feeds = found["question_encoder"][1]
            states, mask = self._run("question_encoder", feeds)["question_embeds"], feeds["attention_mask"]
        cross = self._run("cross_keys", {"encoder_hidden_states": states})
        prompt = self._prompt() | {"cross_mask": mask} | self._empty_past(len(mask)) | cross
        answer = self._run("text_decoder", prompt)
        step = prompt | {name.replace("present", "past"): array for name, array in answer.items()}
        del step["logits"]
        step["input_ids"] = answer["logits"].argmax(-1)[:, None]
        step["attention_mask"] = np.pad(prompt["attention_mask"], ((0, 0), (0, 1)), constant_values=1)
        step["position_ids"] = prompt["position_ids"][:, -1:] + 1
        return {
            "cross_keys": [{"encoder_hidden_states": states[:1]}, {"encoder_hidden_states": states}],
            "text_decoder": [prompt, step],
        }

    def _pictures(self) -> np.ndarray:
        """float32[3, 3, S, S]."""
        settings = PictureSettings(**self._settings["picture"])
        pixels = [fit_picture(_picture(*size), settings, "a picture of the recipe") for size in _PICTURES]
        return pixel_values(pixels, settings, "float32")

    def _tokens(self) -> list[list[int]]:
        tokenizer = open_tokenizer(self._tokenizer)
        longest = self._settings["text"]["max_length"] - 2  # the first and the last token come on top
        return [tokenizer.encode(text, add_special_tokens=False).ids[:longest] for text in _TEXTS]

    def _encoder_texts(self) -> Feeds:
        words = self._settings["text"]
        rows = [[words["start"], *tokens, words["sep"]] for tokens in self._tokens()]
        ids, mask = _padded(rows, words["pad"], left=False)
        return {"input_ids": ids, "attention_mask": mask}

    def _prompt(self) -> Feeds:
        words = self._settings["text"]
        ids, mask = _padded([[words["bos"], *tokens] for tokens in self._tokens()], words["pad"], left=True)
        positions = np.maximum(mask.cumsum(1) - 1, 0)
        return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}

    def _empty_past(self, n_rows: int) -> Feeds:
        inputs = self._parts["text_decoder"].signature.inputs
        sizes = {"batch": n_rows, "past": 0}
        return {s.name: np.zeros(s.shape(sizes), np.float32) for s in inputs if s.name.startswith("past_")}

    def _run(self, name: str, feeds: Feeds) -> Feeds:
        """Run one part with PyTorch."""
        part = self._parts[name]
        tensors = [torch.from_numpy(feeds[spec.name].copy()) for spec in part.signature.inputs]
        with torch.no_grad():
            answer = part.module(*tensors)
        answers = answer if isinstance(answer, tuple) else (answer,)
        return {s.name: a.numpy() for s, a in zip(part.signature.outputs, answers, strict=True)}


def _picture(height: int, width: int) -> Image.Image:
    """Return a picture of smooth colours: the same one everywhere."""
    coarse = make_array(
        Uniform(height * 1000 + width, 0, 255), (height // 40 + 2, width // 40 + 2, 3), "uint8"
    )
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[batch, sequence] tokens, and 1 where they are no padding."""
    length = max(map(len, rows))
    ids = np.full((len(rows), length), pad, np.int64)
    mask = np.zeros((len(rows), length), np.int64)
    for i, row in enumerate(rows):
        place = slice(length - len(row), length) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = row, 1
    return ids, mask
