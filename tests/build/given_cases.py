"""A user's own cases."""

from __future__ import annotations

import numpy as np


def samples() -> list[dict[str, np.ndarray]]:
    """Return one case of two rows."""
    return [{"features": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 12)}]


def wrong() -> list[dict[str, np.ndarray]]:
    """Return a case of another type than the input's."""
    return [{"features": np.zeros((2, 12))}]
