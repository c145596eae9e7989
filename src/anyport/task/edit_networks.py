"""The five graphs of a picture editor, each as a function of what it means."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.errors import InputError, SessionError
from anyport.task.edit_latents import pack, token_grid, unpack
from anyport.task.edit_patches import grid_of, vae_pixels, vision_patches
from anyport.task.edit_positions import multimodal_positions, plain_positions
from anyport.task.edit_rope import rope_tables
from anyport.task.edit_tiles import Tiles, in_tiles
from anyport.task.edit_windows import window_feeds
from anyport.task.flow_match import timestep
from anyport.task.remembered import Remembered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.task.edit_plan import EditPlan, SeenPicture
    from anyport.task.edit_prompt import InstructionReader
    from anyport.task.edit_settings import EditorSettings
    from anyport.task.edit_sizes import Size
    from anyport.task.part_forms import OpenParts

MAX_REMEMBERED_BYTES: Final = 256 << 20  # some sixty prompts about two pictures, 3584 numbers wide

_SMALLER: Final = "give fewer or smaller ones, or build the model again with a wider dim"
_TILES: Final = "pass it through the VAE in tiles: --vae-tile 512, Editing(vae_tile=512)"

Tables = dict[str, np.ndarray]


class EditNetworks:
    """The graphs, and what was computed of pictures and prompts.

    Attributes:
        remembered: The states of prompts and pictures.
    """

    def __init__(self, parts: OpenParts, settings: EditorSettings, reader: InstructionReader) -> None:
        self.remembered = Remembered(MAX_REMEMBERED_BYTES)
        self._parts, self._settings, self._reader = parts, settings, reader

    def check_room(self, plan: EditPlan) -> None:
        """Refuse what is larger than the graphs take, before anything is computed.

        Raises:
            InputError: Naming the picture, the instruction or the size.
        """
        settings, n_latent = self._settings, 0
        for one in plan.pictures:
            encoding = Tiles.encoding(plan.vae_tile, settings.latents) if plan.vae_tile else None
            for width, height in _shapes(one.sizes.vae, encoding):
                self._check_shape("vae_encoder", "image", (1, 3, height, width), one.name, do=_TILES)
            n_latent += int(np.prod(token_grid(one.sizes.vae, settings.latents)))
        wide, high = (side // settings.latents.vae_scale for side in plan.output.computed)
        decoding = Tiles.decoding(plan.vae_tile, settings.latents) if plan.vae_tile else None
        for width, height in _shapes((wide, high), decoding):
            latent = (1, settings.latents.channels, height, width)
            self._check_shape("vae_decoder", "latent", latent, "the answer's size", do=_TILES)
        grids = [grid_of(one.sizes, settings.picture) for one in plan.pictures]
        for prompt in plan.prompts:
            n_tokens = len(self._reader.tokens(prompt, self._n_merged(grids)))
            self._check_shape("text_encoder", "input_ids", (1, n_tokens), "the instruction with its pictures")
        n_latent += plan.noise.shape[1]
        hidden = (1, n_latent, settings.latents.token_width)
        self._check_shape("transformer", "hidden_states", hidden, "the answer with its pictures")

    def prompt_states(self, plan: EditPlan) -> list[np.ndarray]:
        """Return float32[1, tokens, width] for each prompt: what the transformer reads.

        Raises:
            SessionError: The runtime failed, or its numbers are not finite.
        """
        picture = self._settings.picture
        grids = [grid_of(one.sizes, picture) for one in plan.pictures]
        patches = np.concatenate([vision_patches(one.image, one.sizes, picture) for one in plan.pictures])
        seen = hashlib.sha256(patches.tobytes()).digest() + repr(grids).encode()
        texts = [self._reader.tokens(prompt, self._n_merged(grids)) for prompt in plan.prompts]

        def make(places: list[int]) -> list[np.ndarray]:
            [embeds] = self.remembered.find([("pictures", seen)], lambda _: [self._look(patches, grids)])
            return [self._states(texts[place], grids, embeds) for place in places]

        return self.remembered.find([("prompt", seen, text.tobytes()) for text in texts], make)

    def picture_latents(self, picture: SeenPicture, size: Size, tile: int) -> np.ndarray:
        """Return float32[1, tokens, width]: a picture as the transformer sees it.

        Args:
            picture: It.
            size: Width and height in which it is seen.
            tile: Side in pixels of the tiles in which it is encoded, if it is larger; 0: whole.
        """
        latents, pixels = self._settings.latents, vae_pixels(picture.image, size)

        def encode(image: np.ndarray) -> np.ndarray:
            return self._run("vae_encoder", {"image": image}, "latent", picture.name)

        latent = in_tiles(encode, pixels, Tiles.encoding(tile, latents)) if tile else encode(pixels)
        return pack(latent, latents.patch)

    def reference_latents(self, plan: EditPlan) -> np.ndarray:
        """Return float32[1, tokens, width]: the tokens of all pictures, in their order."""
        found = [self.picture_latents(one, one.sizes.vae, plan.vae_tile) for one in plan.pictures]
        return np.concatenate(found, axis=1)

    def tables(self, plan: EditPlan, n_text: int) -> Tables:
        """Return the rotary tables of the transformer for a prompt of this many tokens.

        Where the part takes it, ``is_output`` is with them: which tokens are the answer's.
        """
        sizes = [plan.output.computed, *(one.sizes.vae for one in plan.pictures)]
        grids = [token_grid(size, self._settings.latents) for size in sizes]
        found = rope_tables(grids, n_text, self._settings.rope)
        if any(spec.name == "is_output" for spec in self._parts.signature("transformer").inputs):
            found["is_output"] = np.arange(len(found["img_cos"])) < plan.noise.shape[1]
        return found

    def velocity(
        self, hidden: np.ndarray, sigma: np.float32, states: np.ndarray, tables: Tables
    ) -> np.ndarray:
        """Return float32[1, tokens, width]: where the latents go, those of pictures too.

        Args:
            hidden: float32[1, tokens, width], the answer's latents and then those of the pictures.
            sigma: The part of noise in the answer's latents.
            states: Those of a prompt.
            tables: For as many tokens.
        """
        feeds = {
            "hidden_states": hidden,
            "encoder_hidden_states": states,
            "timestep": timestep(sigma, self._settings.schedule),
            **tables,
        }
        return self._run("transformer", feeds, "velocity", f"sigma {sigma:.4g}")

    def pixels(self, tokens: np.ndarray, plan: EditPlan) -> np.ndarray:
        """Return float32[height, width, 3] from 0 to 1: the latents of the answer as a picture."""
        latents = self._settings.latents
        latent = unpack(tokens, plan.output.computed, latents)

        def decode(part: np.ndarray) -> np.ndarray:
            return self._run("vae_decoder", {"latent": part}, "image", "the answer")

        tile = plan.vae_tile
        image = in_tiles(decode, latent, Tiles.decoding(tile, latents)) if tile else decode(latent)
        scaled = image[0].transpose(1, 2, 0) * np.float32(0.5) + np.float32(0.5)
        return np.ascontiguousarray(scaled.clip(0, 1))

    def _look(self, patches: np.ndarray, grids: Sequence[tuple[int, int]]) -> np.ndarray:
        picture = self._settings.picture
        feeds = window_feeds(grids, picture.merge, picture.window // picture.patch)
        return self._run("vision_encoder", {"pixel_values": patches, **feeds}, "image_embeds", "the pictures")

    def _states(self, tokens: np.ndarray, grids: Sequence[tuple[int, int]], embeds: np.ndarray) -> np.ndarray:
        text, merge = self._settings.text, self._settings.picture.merge
        if text.positions == "plain":
            positions = plain_positions(len(tokens))
        else:
            positions = multimodal_positions(tokens, grids, text.image_pad, merge)
        feeds = {
            "input_ids": tokens[None],
            "attention_mask": np.ones((1, len(tokens)), np.int64),
            "position_ids": positions,
            "image_embeds": embeds,
        }
        states = self._run("text_encoder", feeds, "last_hidden_state", "the instruction")
        return np.ascontiguousarray(states[:, text.n_dropped :])

    def _n_merged(self, grids: Sequence[tuple[int, int]]) -> list[int]:
        return [rows * columns // self._settings.picture.merge**2 for rows, columns in grids]

    def _run(self, part: str, feeds: Mapping[str, np.ndarray], output: str, what: str) -> np.ndarray:
        found = self._parts.session(part).run(feeds)[output]
        if not np.isfinite(found).all():
            raise SessionError(f"the '{output}' that the part '{part}' gives for {what} is not finite")
        return found

    def _check_shape(
        self, part: str, name: str, shape: Sequence[int], what: str, *, do: str = _SMALLER
    ) -> None:
        signature = self._parts.signature(part)
        spec = next(spec for spec in signature.inputs if spec.name == name)
        for axis, size in zip(spec.axes, shape, strict=True):
            sizes = signature.dims.get(axis.text)
            if sizes is not None and not sizes.holds(size):
                raise InputError(
                    f"{what}: the part '{part}' would see {axis} = {size}, it takes {sizes}",
                    do=do,
                )


def _shapes(size: Size, tiles: Tiles | None) -> list[Size]:
    """Return the width and height of each kind of tile, or of the whole."""
    width, height = size
    if tiles is None or max(size) <= tiles.side:
        return [size]
    return [(wide, high) for wide in sorted(tiles.sides(width)) for high in sorted(tiles.sides(height))]
