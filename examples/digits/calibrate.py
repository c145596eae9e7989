"""What INT8 is calibrated and judged on: training pictures; the held-out ones have no say in it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pictures import split

N_PICTURES = 512


def samples() -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield training pictures in a fixed order, mixed over the digits.

    Yields:
        pixel_values: float32[1, 1, 8, 8], normalised.

    Example:
        >>> next(samples())["pixel_values"].shape
        (1, 1, 8, 8)
    """
    training, _ = split()
    for picture in training.pixel_values[:N_PICTURES]:
        yield {"pixel_values": picture[None]}
