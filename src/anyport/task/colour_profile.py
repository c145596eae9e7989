"""The colour profile of a picture file: what its red, green and blue mean."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from anyport.task.pictures import FORMATS

if TYPE_CHECKING:
    from anyport.task.pictures import Picture

_SPACE: Final = slice(16, 20)  # ICC.1:2022, 7.2.6: the colour space of the numbers
_MARK: Final = (slice(36, 40), b"acsp")  # 7.2.11: what every profile holds


def rgb_profile(source: Picture) -> bytes | None:
    """Return the ICC profile of a picture whose numbers it describes.

    Args:
        source: A picture that `anyport.task.pictures.read_picture` reads.

    Returns:
        ``None`` where there is no profile, or one of CMYK or grey numbers: these became RGB by formulas,
        and the profile no longer speaks of them.
    """
    found = _profile(source)
    if isinstance(found, bytes) and found[_MARK[0]] == _MARK[1] and found[_SPACE] == b"RGB ":
        return found
    return None


def _profile(source: Picture) -> object:
    if isinstance(source, Image.Image):
        return source.info.get("icc_profile")
    if isinstance(source, np.ndarray):
        return None
    file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            return image.info.get("icc_profile")
    except (OSError, UnidentifiedImageError):
        return None  # read_picture says what is wrong with it
