from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from anyport.verify.likeness import Likeness, decibels, likeness, psnr, snr, ssim


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


@pytest.mark.parametrize("size", [(7, 7), (16, 40), (33, 9)])
@pytest.mark.parametrize("noise", [0.0, 1e-6, 0.02, 0.5])
def test_ssim_is_that_of_scikit_image(size: tuple[int, int], noise: float) -> None:
    a = picture(*size)
    b = (a + np.float32(noise) * picture(*size, seed=1)).clip(0, 1)
    wanted = structural_similarity(a.astype(float), b.astype(float), data_range=1.0, channel_axis=2)
    assert ssim(a, b) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 5)])
def test_a_small_picture_is_one_window(size: tuple[int, int]) -> None:
    assert ssim(picture(*size), picture(*size)) == pytest.approx(1.0)
    assert ssim(picture(*size), 1 - picture(*size)) < 0.99


def test_likeness_counts_levels_after_rounding() -> None:
    a = np.full((8, 8, 3), 100 / 255, np.float32)
    b = a.copy()
    b[0, 0, 0] = 103.4 / 255
    found = likeness(b, a)
    assert found.max_levels == 3
    assert found.psnr_db == pytest.approx(10 * math.log10(192 / (3.4 / 255) ** 2), abs=1e-3)
    assert likeness(a, a) == Likeness(math.inf, 1.0, 0)
    assert likeness(a, a).to_json() == {"psnr_db": "inf", "ssim": 1.0, "max_levels": 0}
    assert str(likeness(a, a)) == "equal, SSIM 1.0000000, uint8 off by 0 at most"


def test_noise_is_held_against_the_peak_or_the_size() -> None:
    wanted = np.float32([3.0, -3.0])
    found = wanted + np.float32(0.03)
    assert psnr(found, wanted) == pytest.approx(-20 * math.log10(0.03), abs=1e-3)
    assert snr(found, wanted) == pytest.approx(40.0, abs=1e-3)
    zeros = np.zeros(2, np.float32)
    assert (snr(zeros, zeros), snr(wanted, zeros), decibels(41.26)) == (math.inf, -math.inf, "41.3 dB")
