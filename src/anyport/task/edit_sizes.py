"""In which sizes pictures are seen and made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyport.errors import InputError
from anyport.task.pictures import MAX_PIXELS

if TYPE_CHECKING:
    from anyport.task.edit_settings import EditorSettings, EditPictureSettings

Size = tuple[int, int]

MAX_RATIO: Final = 200  # transformers' Qwen2VLImageProcessor refuses longer pictures


@dataclass(frozen=True, slots=True)
class PictureSizes:
    """Width and height of one picture, in the three forms that the model sees.

    Attributes:
        condition: What it is reduced to first.
        patches: What the vision encoder cuts into patches, made of the first.
        vae: What becomes latents.
    """

    condition: Size
    patches: Size
    vae: Size


def size_of_area(size: Size, area: int, multiple: int) -> Size:
    """Return the size of about this area in the proportions of ``size``, in whole multiples.

    From diffusers: ``calculate_dimensions`` of the pipeline QwenImageEditPlus.

    >>> size_of_area((640, 480), 1024 * 1024, 32)
    (1184, 896)

    Args:
        size: Width and height.
        area: In pixels.
        multiple: Both sides are rounded to it; a thin side may become 0.
    """
    ratio = size[0] / size[1]
    width = math.sqrt(area * ratio)
    height = width / ratio
    return round(width / multiple) * multiple, round(height / multiple) * multiple


def size_for_patches(size: Size, settings: EditPictureSettings) -> Size:
    """Return the size that a picture is stretched to before it is cut into patches.

    From transformers: ``smart_resize`` of Qwen2VLImageProcessor.

    Args:
        size: Width and height.
        settings: ``patch``, ``merge``, ``min_pixels`` and ``max_pixels`` count.
    """
    factor = settings.patch * settings.merge
    width, height = size
    wide, high = round(width / factor) * factor, round(height / factor) * factor
    if wide * high > settings.max_pixels:
        shrink = math.sqrt(width * height / settings.max_pixels)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
        high = max(factor, math.floor(height / shrink / factor) * factor)
    elif wide * high < settings.min_pixels:
        grow = math.sqrt(settings.min_pixels / (width * height))
        wide = math.ceil(width * grow / factor) * factor
        high = math.ceil(height * grow / factor) * factor
    return wide, high


def picture_sizes(size: Size, settings: EditPictureSettings, name: str) -> PictureSizes:
    """Return the sizes in which a picture is seen.

    Raises:
        InputError: It is too long and thin to be seen.
    """
    condition = size_of_area(size, settings.condition_area, settings.side_multiple)
    vae = size_of_area(size, settings.vae_area, settings.side_multiple)
    if min(*condition, *vae) == 0 or max(condition) > MAX_RATIO * min(condition):
        raise InputError(
            f"{name} is {size[0]} x {size[1]} pixels: it is too long and thin for the model",
            do=f"cut out the part that is meant; the longer side may be {MAX_RATIO} times the other",
        )
    return PictureSizes(condition, size_for_patches(condition, settings), vae)


@dataclass(frozen=True, slots=True)
class OutputSize:
    """Width and height of an answer.

    Attributes:
        computed: What the model makes, in whole tokens.
        given: What the user gets.
    """

    computed: Size
    given: Size


def output_size(asked: Size | None, picture: Size, settings: EditorSettings) -> OutputSize:
    """Return the size that is computed for an answer.

    A size in whole tokens is computed as it is asked for, another one in the tokens that fit into it, and
    one larger than the model makes in the largest area that it does make.

    Args:
        asked: Width and height; the model's own choice for the picture if absent.
        picture: Width and height of the picture whose proportions count then.
        settings: Checked.

    Raises:
        InputError: It is smaller than one token, too large, or too long and thin.
    """
    step, limits = settings.latents.pixels_per_token, settings.picture
    if asked is None:
        chosen = size_of_area(picture, limits.output_area, limits.side_multiple)
        return OutputSize(chosen, chosen)
    if asked[0] * asked[1] > MAX_PIXELS:
        raise InputError(
            f"the size {asked[0]} x {asked[1]} is more than {MAX_PIXELS // 10**6} million pixels",
            do=f"the model makes up to {limits.max_output_area} pixels; what is larger is that, resized",
        )
    if min(asked) < step:
        raise InputError(
            f"the size {asked[0]} x {asked[1]} is too small: the model makes {step} pixels or more"
        )
    computed = (asked[0] // step * step, asked[1] // step * step)
    if asked[0] * asked[1] > limits.max_output_area:
        computed = size_of_area(asked, limits.max_output_area, step)
    if min(computed) == 0:
        raise InputError(f"the size {asked[0]} x {asked[1]} is too long and thin for the model")
    return OutputSize(computed, asked)
