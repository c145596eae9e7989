"""True classifier-free guidance: away from what the negative prompt would give."""

from __future__ import annotations

import numpy as np


def guided(positive: np.ndarray, negative: np.ndarray, scale: float) -> np.ndarray:
    """Combine two velocities, each token as long as the positive one is.

    From diffusers' pipeline QwenImageEditPlus. ``scale`` 1 gives the positive one back.

    >>> guided(np.float32([[[3, 4]]]), np.float32([[[0, 0]]]), 2.0).tolist()
    [[[3.0, 4.0]]]

    Args:
        positive: float32[batch, tokens, width], the answer to the instruction.
        negative: The same for the negative prompt.
        scale: The guidance scale.

    Returns:
        The same shape. A token whose combination is 0 stays 0 (PyTorch: NaN).
    """
    combined = negative + np.float32(scale) * (positive - negative)
    wanted = np.linalg.norm(positive, axis=-1, keepdims=True)
    found = np.linalg.norm(combined, axis=-1, keepdims=True)
    ratio = np.divide(wanted, found, out=np.zeros_like(wanted), where=found > 0)
    rescaled: np.ndarray = combined * ratio
    return rescaled
