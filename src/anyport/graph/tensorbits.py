"""A torch tensor as a numpy array with the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np


def array_of(value: torch.Tensor) -> np.ndarray:
    """Return the array; bfloat16, which numpy lacks, as uint16 with the same bits.

    >>> array_of(torch.ones(2, dtype=torch.bfloat16))
    array([16256, 16256], dtype=uint16)
    """
    value = value.detach().to("cpu").contiguous()
    array: np.ndarray = value.view(torch.uint16).numpy() if value.dtype == torch.bfloat16 else value.numpy()
    return array
