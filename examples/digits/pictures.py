"""The digit pictures: which ones train the model, which ones judge it, and how both are normalised."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 0
HELD_OUT_FRACTION = 0.2
# Mean and standard deviation of all pixels of the training pictures at scale 0..1, to four places.
# `anyport.toml` carries the same two numbers.
MEAN = 0.3054
STD = 0.3761


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures with their digits.

    Attributes:
        pixel_values: float32[n, 1, 8, 8], normalised.
        labels: int64[n], the digits 0..9.
    """

    pixel_values: NDArray[np.float32]
    labels: NDArray[np.int64]


def split() -> tuple[Pictures, Pictures]:
    """Split scikit-learn's 1797 pictures, the same way every time and alike in every digit.

    Returns:
        The 1437 training pictures and the 360 held-out pictures.

    Example:
        >>> training, held_out = split()
        >>> training.pixel_values.shape, held_out.pixel_values.shape
        ((1437, 1, 8, 8), (360, 1, 8, 8))
    """
    dataset = load_digits()
    pixel_values = normalize(dataset.images[:, None] / 16.0)
    labels = dataset.target.astype(np.int64)
    rows = train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT_FRACTION, random_state=SEED, stratify=labels
    )
    training, held_out = (Pictures(pixel_values[chosen], labels[chosen]) for chosen in rows)
    return training, held_out


def normalize(pixels: NDArray[np.float64]) -> NDArray[np.float32]:
    """Bring pixels of scale 0..1 to mean 0 and standard deviation 1 over the training pictures.

    Args:
        pixels: float64 of any shape, 0 the background and 1 full ink.

    Returns:
        float32 of the same shape.
    """
    return ((pixels - MEAN) / STD).astype(np.float32)


def pixel_values_of(picture: Image.Image) -> NDArray[np.float32]:
    """Prepare one picture file as `anyport.toml` describes: upright, grey, 8x8 by box, normalised.

    Args:
        picture: A digit of any size and mode, bright ink on a dark background.

    Returns:
        float32[1, 1, 8, 8].
    """
    upright = ImageOps.exif_transpose(picture)
    small = upright.convert("L").resize((8, 8), Image.Resampling.BOX)
    return normalize(np.asarray(small, np.float64)[None, None] / 255.0)
