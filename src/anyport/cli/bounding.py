"""What ``anyport run --max-memory`` says: how the parts are opened, first, and the peak, last."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anyport.task.memory_peak import PeakMemory
    from anyport.task.memory_policy import MemoryPlan


class MemoryLines:
    """The lines of one run, on standard error; nothing where no limit is given."""

    def __init__(self, limit_bytes: int | None, *, is_shown: bool) -> None:
        self._limit_bytes = limit_bytes
        self._is_shown = is_shown
        self._shown: set[str] = set()
        self._plan: MemoryPlan | None = None
        self._peak: PeakMemory | None = None

    def told(self, plan: MemoryPlan) -> None:
        """Print how parts are opened; later, what of it has changed."""
        self._plan = plan
        self._print(line for line in plan.lines() if line not in self._shown)

    def record(self) -> dict[str, Any]:
        """Return what ``--json`` says of it."""
        if self._plan is None or self._peak is None:
            return {}
        return {"memory": self._plan.to_json() | {"peak_bytes": self._peak.above_bytes}}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at the memory of this process; the last line says how much it needed."""
        from anyport.bundle.disk import size_text
        from anyport.task.memory_peak import PeakMemory

        if self._limit_bytes is None:
            yield
            return
        with PeakMemory() as self._peak:
            yield
        found, limit = self._peak.above_bytes, size_text(self._limit_bytes)
        most = "is not told by this system" if found is None else f"{size_text(found)} more than before"
        self._print([f"memory   peak {most}: weights and computing ({limit} at most), Python, arrays"])

    def _print(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._shown.add(line)
            if self._is_shown:
                click.echo(line, err=True)
