"""A user's own cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator


def samples() -> list[dict[str, np.ndarray]]:
    """Return one case of two rows."""
    return [{"features": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 12)}]


def wrong() -> list[dict[str, np.ndarray]]:
    """Return a case of another type than the input's."""
    return [{"features": np.zeros((2, 12))}]


def fails() -> list[dict[str, np.ndarray]]:
    """Raise at once."""
    raise RuntimeError("no pictures here")


def fails_late() -> Iterator[dict[str, np.ndarray]]:
    """Raise after one case."""
    yield samples()[0]
    raise RuntimeError("no more pictures")


def a_number() -> int:
    """Return no list."""
    return 3


def lists() -> list[list[int]]:
    """Return lists in place of dicts."""
    return [[1, 2]]
