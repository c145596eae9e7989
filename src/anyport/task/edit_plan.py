"""What will be done to edit a picture: everything that is read and checked before anything is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.errors import InputError
from anyport.task.colour_profile import rgb_profile
from anyport.task.edit_latents import drawn_latents, given_latents
from anyport.task.edit_region import region_of_box, region_of_mask
from anyport.task.edit_sizes import OutputSize, output_size, picture_sizes, size_of_area
from anyport.task.edit_tiles import check_tile
from anyport.task.flow_match import check_steps
from anyport.task.pictures import read_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from anyport.task.edit_prompt import Instruction, InstructionReader
    from anyport.task.edit_region import Box
    from anyport.task.edit_settings import EditorSettings
    from anyport.task.edit_sizes import PictureSizes, Size
    from anyport.task.pictures import Picture

MAX_GUIDANCE: Final = 100  # some 1e19 times more overflow float32
SMALL: Final = 32  # pixels: the VAE makes 4 numbers in a row of them


@dataclass(frozen=True, slots=True, eq=False)
class Editing:
    """How a picture is edited; what is absent is as the bundle says.

    Attributes:
        negative: What the answer is led away from. It counts with a guidance scale above 1.
        guidance: The scale of true classifier-free guidance; up to 1 the transformer runs once in a step,
            above it twice.
        steps: How many.
        seed: Of the noise that the answer begins with, from numpy's generator: not the numbers of PyTorch.
            0 if absent.
        latents: The noise itself, float32[1, tokens, 64] as diffusers takes it, in the place of a seed.
        size: Width and height of the answer.
        mask: A picture of the size of the first one: only where it is white may that one change.
        box: The same as left, top, right, bottom in pixels.
        max_length: How many tokens of an instruction are used; 0 for all.
        step_cache: The threshold below which a step reuses the velocity of the one before; see
            `anyport.task.edit_step_cache`. Every step is computed if absent.
        vae_tile: Side in pixels of the tiles in which larger pictures go through the VAE; 0: no tiles. As the
            bundle says if absent.
    """

    negative: str | None = None
    guidance: float | None = None
    steps: int | None = None
    seed: int | None = None
    latents: np.ndarray | None = None
    size: Size | None = None
    mask: Picture | None = None
    box: Box | None = None
    max_length: int | None = None
    step_cache: float | None = None
    vae_tile: int | None = None

    def __post_init__(self) -> None:
        """Refuse what has another type: files and command lines are checked, Python's callers are not."""
        for name in ("steps", "seed", "max_length", "vae_tile"):
            _check_numbers(name, getattr(self, name), Integral, "a whole number")
        for name in ("guidance", "step_cache"):
            _check_numbers(name, getattr(self, name), Real, "a number")
        for name, words in (("size", ("width", "height")), ("box", ("left", "top", "right", "bottom"))):
            found = getattr(self, name)
            if found is None:
                continue
            if not isinstance(found, tuple | list) or len(found) != len(words):
                raise InputError(f"{name} is {found!r}, it must be ({', '.join(words)})")
            for one in found:
                _check_numbers(name, one, Integral, "whole numbers")


def _check_numbers(name: str, value: object, kind: type, wanted: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{name} is {value!r}, it must be {wanted}")


@dataclass(frozen=True, slots=True, eq=False)
class SeenPicture:
    """A picture that was read.

    Attributes:
        name: The path it came from, or ``picture 3``.
        image: Upright, of mode ``RGB``.
        profile: The ICC profile of its numbers.
        sizes: In which the model sees it.
    """

    name: str
    image: Image.Image
    profile: bytes | None
    sizes: PictureSizes


@dataclass(frozen=True, slots=True, eq=False)
class EditPlan:
    """What will be computed.

    Attributes:
        pictures: In their order.
        prompts: The instruction, and the negative prompt where there is guidance.
        guidance: The scale; 1 without.
        n_steps: How many.
        noise: float32[1, tokens, width], what the answer begins with.
        output: Its size.
        region: bool[height, width] of the first picture: where it may change. Everywhere if absent.
        notes: What the user should know, such as words that are cut off.
        step_cache: The threshold of the step cache; 0 computes every step.
        vae_tile: Side in pixels of the tiles in which larger pictures go through the VAE; 0: no tiles.
    """

    pictures: tuple[SeenPicture, ...]
    prompts: tuple[Instruction, ...]
    guidance: float
    n_steps: int
    noise: np.ndarray
    output: OutputSize
    region: np.ndarray | None
    notes: tuple[str, ...]
    step_cache: float = 0.0
    vae_tile: int = 0


def plan_edit(
    pictures: Sequence[Picture],
    instruction: str,
    how: Editing,
    settings: EditorSettings,
    reader: InstructionReader,
) -> EditPlan:
    """Read and check everything.

    Raises:
        InputError: Naming what does not fit.
    """
    n_steps = settings.sampling.steps if how.steps is None else how.steps
    check_steps(n_steps, settings.schedule)
    scale = _guidance(how, settings)
    prompts, notes = _prompts(instruction, how, settings, reader, scale)
    seen = _seen(pictures, settings)
    region = _region(how, seen[0].image.size)
    output = _output(how, seen, settings, has_region=region is not None)
    return EditPlan(
        pictures=seen,
        prompts=prompts,
        guidance=scale if len(prompts) > 1 else 1.0,
        n_steps=n_steps,
        noise=_noise(how, output.computed, settings),
        output=output,
        region=region,
        notes=(*notes, *_notes(seen, output)),
        step_cache=_step_cache(how),
        vae_tile=_vae_tile(how, settings),
    )


def _step_cache(how: Editing) -> float:
    threshold = 0.0 if how.step_cache is None else how.step_cache
    if not math.isfinite(threshold) or threshold < 0:
        raise InputError(
            f"step_cache is {threshold}, it must be 0 or more", do="0.05 is careful, 0.2 is fast"
        )
    return threshold


def _vae_tile(how: Editing, settings: EditorSettings) -> int:
    side = settings.latents.vae_tile if how.vae_tile is None else how.vae_tile
    check_tile(side, settings.latents)
    return side


def _guidance(how: Editing, settings: EditorSettings) -> float:
    scale = settings.sampling.guidance if how.guidance is None else how.guidance
    if not 0 <= scale <= MAX_GUIDANCE:
        raise InputError(
            f"guidance is {scale}, it must be from 0 to {MAX_GUIDANCE}", do="1 and below: no guidance"
        )
    return scale


def _prompts(
    instruction: str, how: Editing, settings: EditorSettings, reader: InstructionReader, scale: float
) -> tuple[tuple[Instruction, ...], list[str]]:
    most = settings.text.max_length if how.max_length is None else how.max_length
    if most < 0:
        raise InputError(f"max_length is {most}, it must be 0 or more")
    negative = settings.sampling.negative if how.negative is None else how.negative
    words = {"the instruction": instruction}
    if scale > 1 and negative is not None:
        words["the negative prompt"] = negative
    read = {name: reader.read(text, name, most) for name, text in words.items()}
    notes = [note for name, one in read.items() if (note := one.note(name)) is not None]
    if not instruction.strip():
        notes.append("the instruction has no words: the model alone decides what to change")
    if how.negative is not None and scale <= 1:
        notes.append(f"guidance is {scale:g}: the negative prompt does not count")
    return tuple(read.values()), notes


def _seen(pictures: Sequence[Picture], settings: EditorSettings) -> tuple[SeenPicture, ...]:
    if isinstance(pictures, str | bytes | np.ndarray | Path) or not hasattr(pictures, "__len__"):
        raise InputError(
            f"edit takes a list of pictures, not one {type(pictures).__name__}", do="write edit([picture], …)"
        )
    n, most = len(pictures), settings.picture.n_max
    if not 1 <= n <= most:
        wanted = "1 picture" if most == 1 else f"1 to {most} pictures"
        raise InputError(f"there are {n} pictures, the model edits {wanted}")
    found = []
    for number, picture in enumerate(pictures, 1):
        name = str(picture) if isinstance(picture, str | Path) else f"picture {number}"
        image = read_picture(picture, name).convert("RGB")
        sizes = picture_sizes(image.size, settings.picture, name)
        found.append(SeenPicture(name, image, rgb_profile(picture), sizes))
    return tuple(found)


def _region(how: Editing, size: Size) -> np.ndarray | None:
    if how.mask is not None and how.box is not None:
        raise InputError("there are a mask and a box", do="give one of them")
    if how.box is not None:
        return region_of_box(how.box, size)
    return None if how.mask is None else region_of_mask(how.mask, size)


def _output(
    how: Editing, seen: Sequence[SeenPicture], settings: EditorSettings, *, has_region: bool
) -> OutputSize:
    if not has_region:
        return output_size(how.size, seen[-1].image.size, settings)
    first = seen[0].image.size
    if how.size not in {None, first}:
        raise InputError(
            "with a mask or a box the answer has the size of the first picture",
            do="leave the size out, or the mask and the box",
        )
    limits = settings.picture
    return OutputSize(size_of_area(first, limits.output_area, limits.side_multiple), first)


def _noise(how: Editing, size: Size, settings: EditorSettings) -> np.ndarray:
    if how.latents is not None:
        if how.seed is not None:
            raise InputError("there are latents and a seed", do="give one of them")
        return given_latents(how.latents, size, settings.latents)
    seed = 0 if how.seed is None else how.seed
    if seed < 0:
        raise InputError(f"seed is {seed}, it must be a whole number, 0 or more")
    return drawn_latents(seed, size, settings.latents)


def _notes(seen: Sequence[SeenPicture], output: OutputSize) -> list[str]:
    notes = []
    if output.computed != output.given:
        (width, height), (wide, high) = output.computed, output.given
        notes.append(f"computed at {width} x {height}, resized to {wide} x {high}")
    for one in seen:
        width, height = one.image.size
        if min(width, height) < SMALL:
            notes.append(f"{one.name} is {width} x {height} pixels: the model sees it much enlarged")
    others = [one.name for one in seen[1:] if one.profile != seen[0].profile]
    words = f"another colour profile than {seen[0].name}: the answer has the latter's"
    return [*notes, *(f"{name} has {words}" for name in others)]
