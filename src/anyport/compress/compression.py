"""What was tried to compress a graph, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from anyport.bundle.disk import size_text
from anyport.compress.rewrite import kept_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.compress.rewrite import KeptFloat
    from anyport.runtime import Optimization
    from anyport.verify.agreement import Evaluation

_HEAD: Final = ("method", "status", "nodes", "size", "ratio", "metric", "reason")
TrialStatus = Literal["behind", "failed", "kept", "nothing", "slower", "worse"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One method on one graph.

    Attributes:
        method: Its notation.
        status: ``kept``; ``behind`` (it passed, another one is better); ``nothing`` (the first gate: it did
            nothing); ``slower`` (the second: not faster than fp32); ``worse`` (the third: the metric does not
            hold, or cannot be judged); ``failed`` (it could not be made or opened).
        n_nodes: Of what it wrote.
        size_bytes: Of what it wrote, with its weights.
        ratio: How many times faster than the fastest proven fp32 of the same race.
        metric: What was measured, in one line; empty if nothing was.
        reason: Why it was not kept; for the kept one, empty or a remark.
    """

    method: str
    status: TrialStatus
    n_nodes: int | None = None
    size_bytes: int | None = None
    ratio: float | None = None
    metric: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Compression:
    """What was kept of what was tried.

    Attributes:
        kept: The notation of the method that was kept.
        optimization: What the runtime may rewrite while it opens the kept graph.
        size_before_bytes: Of the original, with its weights.
        size_bytes: Of the kept graph.
        ratio: How many times faster than the fastest proven fp32.
        baseline: The level at which the original is proven and fastest.
        is_faster: Whether it passed the second gate; if not it was kept for its size.
        evaluation: What the third gate measured of the kept graph.
        operators: Of the kept graph: operator -> number of nodes.
        kept_float: What holds weights and stayed float, with the reason.
        trials: One for each candidate.
        calibrated_on: The samples that set the ranges; empty for methods without.
    """

    kept: str
    optimization: Optimization
    size_before_bytes: int
    size_bytes: int
    ratio: float
    baseline: Optimization
    is_faster: bool
    evaluation: Evaluation
    operators: Mapping[str, int]
    kept_float: tuple[KeptFloat, ...]
    trials: tuple[Trial, ...]
    calibrated_on: str = ""

    @property
    def smaller(self) -> float:
        """How many times smaller than the original."""
        return self.size_before_bytes / self.size_bytes

    def summary(self) -> str:
        """Return one line: ``int8-static:u8s8   3.6x smaller, 1.3x faster   top-1 agreement 99 % …``."""
        speed = (
            f"{self.ratio:.2f}x faster"
            if self.is_faster
            else f"NOT FASTER ({self.ratio:.2f}x), kept for size"
        )
        return f"{self.kept}   {self.smaller:.2f}x smaller, {speed}   {self.evaluation.line()}"

    def __str__(self) -> str:
        """Return the trials as a table, and what stayed float."""
        rows = [_HEAD, *(_row(trial) for trial in self.trials)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
        lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows]
        kept = kept_line(self.kept_float)
        return "\n".join([line.rstrip() for line in lines] + ([f"stayed float: {kept}"] if kept else []))

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            "kept": self.kept,
            "optimization": self.optimization,
            "size_before_bytes": self.size_before_bytes,
            "size_bytes": self.size_bytes,
            "ratio": self.ratio,
            "baseline": self.baseline,
            "is_faster": self.is_faster,
            "evaluation": self.evaluation.to_json(),
            "operators": dict(self.operators),
            "kept_float": [asdict(entry) for entry in self.kept_float],
            "trials": [asdict(trial) for trial in self.trials],
            "calibrated_on": self.calibrated_on,
        }


def _row(trial: Trial) -> tuple[str, ...]:
    return (
        trial.method,
        trial.status,
        "-" if trial.n_nodes is None else str(trial.n_nodes),
        "-" if trial.size_bytes is None else size_text(trial.size_bytes),
        "-" if trial.ratio is None else f"{trial.ratio:.2f}x",
        trial.metric or "-",
        trial.reason,
    )
