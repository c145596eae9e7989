"""The user's own cases for verification: real held-out pictures in three batch sizes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

SAMPLES = Path(__file__).with_name("samples.safetensors")
BATCH_SIZES = (1, 3, 8)


def samples() -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield one case per batch size; no picture comes twice.

    Yields:
        pixel_values: float32[batch, 1, 8, 8], normalised.

    Example:
        >>> [case["pixel_values"].shape for case in samples()]
        [(1, 1, 8, 8), (3, 1, 8, 8), (8, 1, 8, 8)]
    """
    pixel_values = load_file(SAMPLES)["pixel_values"]
    for batch in np.split(pixel_values, np.cumsum(BATCH_SIZES)[:-1]):
        yield {"pixel_values": batch}
