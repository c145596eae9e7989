"""How a picture becomes pixel values: the settings, and the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import numpy as np
from PIL import Image

from anyport.errors import InputError, UsageError
from anyport.task.pictures import MAX_PIXELS, read_picture
from anyport.task.task import silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.task.pictures import Picture
    from anyport.task.task import Progress
    from anyport.tensors import Signature, TensorSpec

Mode = Literal["L", "RGB"]
Resample = Literal["bicubic", "bilinear", "box", "hamming", "lanczos", "nearest"]

_FILTERS: Final[dict[str, Image.Resampling]] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
_N_CHANNELS: Final = {"L": 1, "RGB": 3}
_PAIR: Final = 2


class PictureSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a picture becomes pixel values: mode, resize, crop, ``(pixel * scale - mean) / std``.

    The order and the rounding are those of transformers' Pillow image processors: a side is
    ``int(long * shortest_edge / short)``, the middle begins at ``(size - crop) // 2``.

    Attributes:
        mode: ``RGB``, or ``L`` for one grey channel (ITU-R 601: 0.299 R + 0.587 G + 0.114 B).
        size: Height and width that the picture is stretched to; or else:
        shortest_edge: The size of the shorter side; the longer one keeps the proportion.
        crop: Height and width of the middle that is kept.
        resample: Pillow's filter.
        scale: Factor from 0..255.
        mean: Per channel, on the scaled pixel.
        std: Per channel, on the scaled pixel.
    """

    mode: Mode = "RGB"
    size: list[int] | None = None
    shortest_edge: int | None = None
    crop: list[int] | None = None
    resample: Resample = "bilinear"
    scale: float = 1 / 255
    mean: list[float] | None = None
    std: list[float] | None = None

    @property
    def n_channels(self) -> int:
        """How many channels the pixel values have."""
        return _N_CHANNELS[self.mode]

    @property
    def result_size(self) -> tuple[int, int]:
        """Height and width of the pixel values."""
        height, width = self.crop or self.size or (0, 0)
        return height, width

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            UsageError: Naming the setting.
        """
        if (self.size is None) == (self.shortest_edge is None):
            raise UsageError("settings: give one of 'size' = [height, width] and 'shortest_edge'")
        for name, pair in (("size", self.size), ("crop", self.crop)):
            if pair is not None and (len(pair) != _PAIR or min(pair) < 1):
                raise UsageError(f"settings: {name} = {pair} must be [height, width], both 1 or more")
        self._check_crop()
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.n_channels:
                raise UsageError(
                    f"settings: {name} has {len(values)} values, "
                    f"mode {self.mode} has {self.n_channels} channels"
                )
        if not all(np.isfinite([self.scale, *(self.mean or ()), *(self.std or ())])) or self.scale == 0:
            raise UsageError("settings: scale, mean and std must be finite, and scale not 0")
        if any(value <= 0 for value in self.std or ()):
            raise UsageError(f"settings: std = {self.std} must be above 0 in every channel")

    def _check_crop(self) -> None:
        if self.shortest_edge is not None and (self.shortest_edge < 1 or self.crop is None):
            raise UsageError("settings: 'shortest_edge' must be 1 or more and needs 'crop' = [height, width]")
        if self.crop is None:
            return
        height, width = self.size or [self.shortest_edge or 0] * _PAIR
        if self.crop[0] > height or self.crop[1] > width:
            raise UsageError(
                f"settings: crop = {self.crop} is larger than the resized picture {[height, width]}"
            )


def fit_picture(picture: Image.Image, settings: PictureSettings, name: str) -> np.ndarray:
    """Convert, resize and crop.

    Args:
        picture: As `anyport.task.pictures.read_picture` gives it.
        settings: Checked.
        name: What messages call the picture.

    Returns:
        uint8[height, width, channels].

    Raises:
        InputError: It is so long that the resized picture would have more than 64 million pixels.
    """
    image = picture.convert(settings.mode)
    height, width = _resized_size(image, settings)
    if height * width > MAX_PIXELS:
        raise InputError(
            f"{name} is {image.width} x {image.height} pixels: resized to {width} x {height} it is too large",
            do="cut out the part that is meant",
        )
    image = image.resize((width, height), _FILTERS[settings.resample])
    if settings.crop is not None:
        crop_height, crop_width = settings.crop
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        image = image.crop((left, top, left + crop_width, top + crop_height))
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], settings.n_channels)


def _resized_size(image: Image.Image, settings: PictureSettings) -> tuple[int, int]:
    if settings.size is not None:
        return settings.size[0], settings.size[1]
    short, long = min(image.size), max(image.size)
    edge = settings.shortest_edge or 0
    far = int(edge * long / short)
    return (edge, far) if image.width >= image.height else (far, edge)


def pixel_values(pixels: Sequence[np.ndarray], settings: PictureSettings, dtype: str) -> np.ndarray:
    """Scale and normalise a batch.

    A pixel has 256 values, so each channel is one look-up in a table that is computed in float64 and
    rounded once.

    Args:
        pixels: uint8[height, width, channels] each.
        settings: Checked.
        dtype: The type of the graph's input.

    Returns:
        dtype[batch, channels, height, width].
    """
    levels = np.arange(256, dtype=np.float64) * settings.scale
    n = settings.n_channels
    tables = [
        ((levels - mean) / std).astype(dtype)
        for mean, std in zip(settings.mean or [0.0] * n, settings.std or [1.0] * n, strict=True)
    ]
    batch = np.stack(pixels)
    return np.stack([table[batch[..., channel]] for channel, table in enumerate(tables)], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class FittedPicture:
    """A picture that was read, checked, resized and cropped.

    Attributes:
        name: The path it came from, or ``picture 3``.
        pixels: uint8[height, width, channels].
    """

    name: str
    pixels: np.ndarray


def fitted_pictures(
    pictures: Sequence[Picture], settings: PictureSettings, verb: str, progress: Progress = silent
) -> list[FittedPicture]:
    """Read and fit every picture, before anything is computed.

    Args:
        pictures: Paths, bytes, Pillow images or numpy arrays, any number of them.
        settings: Checked.
        verb: The method that was called, for messages.
        progress: Called after each picture.

    Raises:
        InputError: Naming the picture that cannot be read; or one picture is given in the place of a list.
    """
    if isinstance(pictures, str | bytes | np.ndarray | Path) or not hasattr(pictures, "__len__"):
        raise InputError(
            f"{verb} takes a list of pictures, not one {type(pictures).__name__}",
            do=f"write {verb}([picture])",
        )
    names = [str(p) if isinstance(p, str | Path) else f"picture {i}" for i, p in enumerate(pictures, 1)]
    found: list[FittedPicture] = []
    for picture, name in zip(pictures, names, strict=True):
        found.append(FittedPicture(name, fit_picture(read_picture(picture, name), settings, name)))
        progress("pictures read", len(found), len(names))
    return found


def check_pictures_fit(settings: PictureSettings, spec: TensorSpec, signature: Signature, what: str) -> None:
    """Check that the pictures which settings make have the shape of a graph's input.

    Args:
        settings: Checked.
        spec: float[batch, channels, height, width].
        signature: That of the graph, for the sizes of its axes.
        what: What messages call the settings.

    Raises:
        UsageError: They have another number of channels, or another size.
    """
    wanted = (settings.n_channels, *settings.result_size)
    for axis, size in zip(spec.axes[1:], wanted, strict=True):
        spread = signature.dims.get(axis.text)
        if (axis.is_fixed and axis.size({}) != size) or (spread is not None and not spread.holds(size)):
            raise UsageError(
                f"{what} make pictures of {wanted[0]} channels, {wanted[1]} x {wanted[2]}, "
                f"the model's input '{spec.name}' is {spec}"
            )
