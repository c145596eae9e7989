"""How like each other two pictures are: the three figures of a whole task's proof."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from anyport.verify.finding import json_number

if TYPE_CHECKING:
    from collections.abc import Callable

_WINDOW: Final = 7
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two pictures, compared.

    Attributes:
        psnr_db: Peak signal-to-noise ratio of the numbers from 0 to 1; infinite where they are equal.
        ssim: Mean structural similarity; 1 where they are equal.
        max_levels: The largest difference of a value of 0 to 255, after both are rounded.
    """

    psnr_db: float
    ssim: float
    max_levels: int

    def __str__(self) -> str:
        """Return one line."""
        return f"{decibels(self.psnr_db)}, SSIM {self.ssim:.7f}, uint8 off by {self.max_levels} at most"

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {"psnr_db": json_number(self.psnr_db), "ssim": self.ssim, "max_levels": self.max_levels}


def likeness(found: np.ndarray, wanted: np.ndarray) -> Likeness:
    """Compare two pictures.

    >>> likeness(np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 3), np.float32))
    Likeness(psnr_db=inf, ssim=1.0, max_levels=0)

    Args:
        found: float32[height, width, channels] from 0 to 1.
        wanted: Of the same shape.
    """
    levels = [(one * np.float32(255)).round().astype(np.int64) for one in (found, wanted)]
    return Likeness(psnr(found, wanted), ssim(found, wanted), int(np.abs(levels[0] - levels[1]).max()))


def psnr(found: np.ndarray, wanted: np.ndarray, peak: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio in dB, infinite for equal arrays.

    >>> round(psnr(np.float32([0.5]), np.float32([0.4])), 3)
    20.0

    Args:
        found: Of any shape.
        wanted: Of the same shape.
        peak: Largest minus least value that there is.
    """
    error = float(np.square(found.astype(np.float64) - wanted.astype(np.float64)).mean())
    return 10 * math.log10(peak**2 / error) if error else math.inf


def snr(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the signal-to-noise ratio in dB: the size of the values against that of the error."""
    size = math.sqrt(float(np.square(wanted.astype(np.float64)).mean()))
    return psnr(found, wanted, size) if size else (-math.inf if found.any() else math.inf)


def ssim(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the mean structural similarity over windows of 7 x 7 pixels.

    Wang, Bovik, Sheikh, Simoncelli: "Image quality assessment: from error visibility to structural
    similarity" (2004), with even windows, as scikit-image has it; smaller pictures are one window.

    Args:
        found: float[height, width, channels] from 0 to 1.
        wanted: Of the same shape.
    """
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    mean = _windows(*a.shape[:2])
    of_a, of_b = mean(a), mean(b)
    n = min(_WINDOW, a.shape[0]) * min(_WINDOW, a.shape[1])
    bessel = n / (n - 1) if n > 1 else 1.0
    spread = bessel * (mean(a * a) - of_a**2 + mean(b * b) - of_b**2)
    common = bessel * (mean(a * b) - of_a * of_b)
    likeness = (2 * of_a * of_b + _C1) * (2 * common + _C2) / ((of_a**2 + of_b**2 + _C1) * (spread + _C2))
    return float(likeness.mean())


def _windows(height: int, width: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return what takes the mean of every window, by sums over all pixels above and to the left."""
    high, wide = min(_WINDOW, height), min(_WINDOW, width)

    def mean(x: np.ndarray) -> np.ndarray:
        sums = np.pad(x.cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
        found = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
        return np.asarray(found / (high * wide))

    return mean


def decibels(value: float) -> str:
    """Return ``131.3 dB``, or ``equal``.

    >>> decibels(131.27), decibels(math.inf)
    ('131.3 dB', 'equal')
    """
    return "equal" if value == math.inf else f"{value:.1f} dB"
