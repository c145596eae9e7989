"""The cases that matter for Qwen-Image-Edit: pictures and texts on their way through the parts.

One and three pictures, with odd grids of tokens and ragged windows; plain and multimodal positions; a text
padded at the right; the first step (where the timestep is 1 and rounding is largest) and later ones.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

from anyport.cases import Normal, Uniform, make_array
from anyport.task.edit_latents import pack
from anyport.task.edit_patches import grid_of, vae_pixels, vision_patches
from anyport.task.edit_positions import multimodal_positions, plain_positions
from anyport.task.edit_rope import rope_tables
from anyport.task.edit_settings import EditorSettings
from anyport.task.edit_sizes import picture_sizes
from anyport.task.edit_windows import window_feeds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyport.recipe.part import Part

Feeds = dict[str, np.ndarray]

_PICTURES: Final = ((130, 97), (37, 53), (240, 64))  # widths and heights
# small, so that a case costs little: what counts is that the grids are odd and the windows ragged
_CONDITION_AREA: Final = 160 * 160
_VAE_AREA: Final = 96 * 96
_TEXT: Final = "把白色T恤换成黑色, and put the bag of the second picture on the table"
_STEPS: Final = (1.0, 0.97, 0.25)
_OUTPUT: Final = (3, 5)  # rows and columns of tokens


def with_cases(parts: tuple[Part, ...], settings: Mapping[str, Any], tokenizer: bytes) -> tuple[Part, ...]:
    """Return the parts with their cases, which are made when they are asked for.

    Args:
        parts: Of one pipeline.
        settings: Of its task.
        tokenizer: The content of its ``tokenizer.json``.
    """
    journey = _Journey({part.name: part for part in parts}, settings, tokenizer)
    return tuple(replace(part, given=partial(journey.cases, part.name)) for part in parts)


class _Journey:
    """The parts fed one after the other, each with what the ones before it answered."""

    def __init__(self, parts: Mapping[str, Part], settings: Mapping[str, Any], tokenizer: bytes) -> None:
        self._parts = parts
        self._settings = msgspec.convert(settings, EditorSettings)
        self._tokenizer = Tokenizer.from_str(tokenizer.decode())
        self._picture = msgspec.structs.replace(
            self._settings.picture, condition_area=_CONDITION_AREA, vae_area=_VAE_AREA
        )
        self._cases: Callable[[], Mapping[str, list[Feeds]]] = cache(self._all_cases)

    def cases(self, part: str) -> list[Feeds]:
        """Return the cases of one part."""
        return self._cases()[part]

    def _all_cases(self) -> dict[str, list[Feeds]]:
        pictures = [_picture(*size) for size in _PICTURES[: self._picture.n_max]]
        vision = [self._vision(pictures[-1:]), self._vision(pictures)]
        images = [self._feed(pictures[:1]), *map(self._feed, ([picture] for picture in pictures[1:]))]
        latents = [self._run("vae_encoder", feeds)["latent"] for feeds in images]
        texts = [self._text(pictures[-1:], vision[0]), self._text(pictures, vision[1])]
        other = texts[0] | {"image_embeds": texts[0]["image_embeds"][::-1].copy()}
        states = [self._run("text_encoder", feeds)["last_hidden_state"] for feeds in texts]
        return {
            "vision_encoder": vision,
            "text_encoder": [*texts, other, self._padded(texts[0])],
            "vae_encoder": images,
            "transformer": self._denoising(latents, states),
            "vae_decoder": [{"latent": latent} for latent in latents],
        }

    def _feed(self, pictures: Sequence[Image.Image]) -> Feeds:
        sizes = picture_sizes(pictures[0].size, self._picture, "a picture of the recipe")
        return {"image": vae_pixels(pictures[0], sizes.vae)}

    def _grids(self, pictures: Sequence[Image.Image]) -> list[tuple[int, int]]:
        sizes = [picture_sizes(p.size, self._picture, "a picture of the recipe") for p in pictures]
        return [grid_of(one, self._picture) for one in sizes]

    def _vision(self, pictures: Sequence[Image.Image]) -> Feeds:
        sizes = [picture_sizes(p.size, self._picture, "a picture of the recipe") for p in pictures]
        patches = [vision_patches(p, s, self._picture) for p, s in zip(pictures, sizes, strict=True)]
        side = self._picture.window // self._picture.patch
        windows = window_feeds(self._grids(pictures), self._picture.merge, side)
        return {"pixel_values": np.concatenate(patches), **windows}

    def _text(self, pictures: Sequence[Image.Image], vision: Feeds) -> Feeds:
        """Return one row: with multimodal positions where there are several pictures."""
        words, merge = self._settings.text, self._picture.merge
        grids = self._grids(pictures)
        head = words.before + "".join(words.picture.replace("{}", str(n + 1)) for n in range(len(grids)))
        sizes = iter(rows * columns // merge**2 for rows, columns in grids)
        ids: list[int] = []
        for token in self._tokenizer.encode(head + _TEXT + words.after, add_special_tokens=False).ids:
            ids += [token] * (next(sizes) if token == words.image_pad else 1)
        tokens = np.array(ids, np.int64)
        is_multimodal = len(grids) > 1
        positions = multimodal_positions(tokens, grids, words.image_pad, merge) if is_multimodal else None
        return {
            "input_ids": tokens[None],
            "attention_mask": np.ones((1, len(tokens)), np.int64),
            "position_ids": plain_positions(len(tokens)) if positions is None else positions,
            "image_embeds": self._run("vision_encoder", vision)["image_embeds"],
        }

    def _padded(self, feeds: Feeds) -> Feeds:
        """Return two rows: a text, and the same text without its last tokens, padded at the right."""
        twice = {name: np.repeat(array, 2, axis=0) for name, array in feeds.items() if array.ndim == 2}  # noqa: PLR2004  (a matrix)
        twice["image_embeds"] = np.concatenate([feeds["image_embeds"]] * 2)
        twice["position_ids"] = np.repeat(feeds["position_ids"], 2, axis=1)
        twice["attention_mask"][1, -6:] = 0
        return twice

    def _denoising(self, latents: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> list[Feeds]:
        """Return one and all pictures at the first step, a batch of two, and a later step."""
        one = self._step(latents[-1:], states[0], _STEPS[0])
        every = self._step(latents, states[-1], _STEPS[1])
        both = {name: np.concatenate([array] * 2) for name, array in one.items() if not _is_table(name)}
        both |= {name: array for name, array in one.items() if _is_table(name)}
        both["timestep"][1] = _STEPS[2]
        later = one | {"timestep": np.array(_STEPS[2:], np.float32)}
        return [one, every, both, later]

    def _step(self, latents: Sequence[np.ndarray], states: np.ndarray, sigma: float) -> Feeds:
        patch, n_dropped = self._settings.latents.patch, self._settings.text.n_dropped
        grids = [_OUTPUT, *((x.shape[2] // patch, x.shape[3] // patch) for x in latents)]
        width = self._settings.latents.token_width
        noise = make_array(Normal(7), (1, _OUTPUT[0] * _OUTPUT[1], width), "float32")
        text = states[:, n_dropped:]
        mask = {"is_output": np.arange(sum(rows * columns for rows, columns in grids)) < noise.shape[1]}
        names = {spec.name for spec in self._parts["transformer"].signature.inputs}
        return {
            **(mask if "is_output" in names else {}),
            "hidden_states": np.concatenate([noise, *(pack(latent, patch) for latent in latents)], axis=1),
            "encoder_hidden_states": text,
            "timestep": np.array([sigma], np.float32),
            **rope_tables(grids, text.shape[1], self._settings.rope),
        }

    def _run(self, name: str, feeds: Feeds) -> Feeds:
        """Run one part with PyTorch."""
        part = self._parts[name]
        tensors = [torch.from_numpy(feeds[spec.name].copy()) for spec in part.signature.inputs]
        with torch.no_grad():
            answer = part.module(*tensors)
        return {part.signature.outputs[0].name: answer.numpy()}


def _is_table(name: str) -> bool:
    return name.endswith(("_cos", "_sin", "is_output"))


def _picture(width: int, height: int) -> Image.Image:
    """Return a picture of smooth colours: the same one everywhere."""
    shape = (height // 40 + 2, width // 40 + 2, 3)
    coarse = make_array(Uniform(height * 1000 + width, 0, 255), shape, "uint8")
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
