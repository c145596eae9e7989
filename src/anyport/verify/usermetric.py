"""A user's own metric: their function measures the exact graph and the lossy one, and the drop is judged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyport.errors import SourceError, UsageError
from anyport.verify.agreement import Evaluation, Measure
from anyport.verify.verdict import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np


@dataclass(frozen=True, slots=True)
class UserMetric:
    """A function such as ``evaluate.py:accuracy(run) -> float``; larger is better.

    ``run(feeds)`` takes a dict of input name -> array and returns output name -> array.

    Attributes:
        text: As the user wrote it.
        function: What it names.
        max_drop: How much less than the exact graph's figure passes, in the function's own unit: 0.005 is
            half a per cent of an accuracy from 0 to 1.
    """

    text: str
    function: Callable[[Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]], float]
    max_drop: float = 0.005

    def __post_init__(self) -> None:
        """Refuse a drop that means nothing."""
        if not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise UsageError(f"max_drop = {self.max_drop} is no limit", do="write a number from 0 on")

    @property
    def name(self) -> str:
        """What messages call it: the name of the function."""
        return self.text.rpartition(":")[2].replace("_", " ")

    def measure(self, run: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]) -> float:
        """Let the function measure one graph.

        Raises:
            SourceError: It fails, returns no finite number, or never runs the graph.
        """
        n_runs = 0

        def counted(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            nonlocal n_runs
            n_runs += 1
            return run(feeds)

        try:
            found = self.function(counted)
        except Exception as err:
            raise SourceError(f"'{self.text}' fails: {type(err).__name__}: {err}") from err
        try:
            value = float(found)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise SourceError(
                f"'{self.text}' returns {found!r}, not a number", do="return a float, larger is better"
            )
        if not n_runs:
            raise SourceError(
                f"'{self.text}' never runs the model", do="call its argument: outputs = run({'input': array})"
            )
        return value

    def compare(self, exact: float, lossy: float) -> Evaluation:
        """Judge the figure of a lossy graph by that of the exact one."""
        drop = exact - lossy
        # 0.989 - 0.984 is 0.0050000000000000044
        passed = drop <= self.max_drop + 1e-9 * max(abs(exact), abs(lossy))
        measure = Measure(
            output="",
            word=self.text,
            about=self.name,
            value=lossy,
            allowance=exact - self.max_drop,
            n_samples=0,
            status=Status.PASS if passed else Status.FAIL,
            text=f"{self.name} {_shown(exact, exact, lossy)} -> {_shown(lossy, exact, lossy)}",
            reason="" if passed else f"a drop of {drop:.4g}, allowed {self.max_drop:.4g}",
            used=max(drop, 0.0) / self.max_drop if self.max_drop else (0.0 if passed else math.inf),
        )
        return Evaluation((measure,))


def _shown(value: float, *both: float) -> str:
    """Return a share as per cent, and anything else as it is."""
    return f"{100 * value:.4g} %" if all(0 <= one <= 1 for one in both) else f"{value:.6g}"
