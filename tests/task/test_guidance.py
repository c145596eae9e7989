"""True classifier-free guidance, against the lines of diffusers' pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyport.task.guidance import guided


@pytest.mark.parametrize("scale", [1.0, 1.5, 4.0, 20.0])
def test_it_is_that_of_diffusers(scale: float) -> None:
    positive, negative = np.random.default_rng(0).standard_normal((2, 1, 50, 64), np.float32)
    ours, theirs = torch.from_numpy(positive), torch.from_numpy(negative)
    combined = theirs + scale * (ours - theirs)
    lengths = torch.norm(ours, dim=-1, keepdim=True) / torch.norm(combined, dim=-1, keepdim=True)
    found = guided(positive, negative, scale)
    assert found.dtype == np.float32
    assert np.abs(found - (combined * lengths).numpy()).max() < 2e-6


def test_tokens_keep_the_length_of_the_positive_ones() -> None:
    positive, negative = np.random.default_rng(1).standard_normal((2, 2, 5, 8), np.float32)
    found = guided(positive, negative, 3.0)
    assert np.allclose(np.linalg.norm(found, axis=-1), np.linalg.norm(positive, axis=-1), rtol=1e-5)
    assert np.allclose(guided(positive, negative, 1.0), positive, rtol=1e-5, atol=1e-6)


def test_a_combination_without_a_direction_stays_zero() -> None:
    zero = np.zeros((1, 1, 4), np.float32)
    assert np.array_equal(guided(zero, zero, 4.0), zero)
