"""A column without a number says why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Blank:
    """What stands where there is no number."""

    why: str
