"""Running the command line inside the test's own process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyport.cli import main

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> Any:
        """The one JSON document of standard output."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs commands and captures what they print."""

    capture: pytest.CaptureFixture[str]

    def __call__(self, *words: object) -> Outcome:
        """Run ``anyport`` with these words."""
        self.capture.readouterr()
        code = main([str(word) for word in words])
        printed = self.capture.readouterr()
        return Outcome(code, printed.out, printed.err)
