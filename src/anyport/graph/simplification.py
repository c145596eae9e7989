"""What was tried to simplify a graph, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from anyport.bundle.disk import size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.runtime import Optimization

_HEAD: Final = (
    "tool",
    "version",
    "status",
    "nodes",
    "size",
    "names",
    "weights",
    "difference",
    "ratio",
    "level",
    "reason",
)
AttemptStatus = Literal["different", "equal", "failed", "kept", "refused", "skipped", "unchanged", "unproven"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One tool on one graph.

    Attributes:
        tool: Its name; ``none`` is the original.
        version: Of the installed package; empty if there is none.
        status: ``kept``; ``equal`` (proven, and not kept); ``unchanged`` (it found nothing to do);
            ``different`` (the comparison failed); ``unproven`` (the comparison proves nothing); ``refused``
            (inputs, outputs, axes or operator sets are not the original's); ``failed`` (crash, time, memory,
            no file); ``skipped`` (not installed).
        n_nodes_before: Nodes of the original.
        n_nodes_after: Nodes of what the tool wrote.
        size_bytes: Model and weights of what the tool wrote.
        n_names_before: Values of the original that the module map knows.
        n_names_after: How many of those kept their name.
        n_weights_before: Weights of the original that have a name to swap them by.
        n_weights_after: How many of those are still there under their name: tools fold, fuse and merge.
        largest_difference: From the reference, over all outputs and cases.
        ratio: How many times faster than the original under the runtime's default optimization.
        optimization: The level at which it has that ratio.
        reason: Why it was not kept; for the kept one, empty or a remark.
    """

    tool: str
    version: str
    status: AttemptStatus
    n_nodes_before: int
    n_nodes_after: int | None = None
    size_bytes: int | None = None
    n_names_before: int | None = None
    n_names_after: int | None = None
    n_weights_before: int | None = None
    n_weights_after: int | None = None
    largest_difference: float | None = None
    ratio: float | None = None
    optimization: Optimization | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Simplification:
    """What was kept of what was tried.

    Attributes:
        kept: The tool whose graph was kept; ``none`` is the original.
        optimization: What the runtime may rewrite while it opens the kept graph: the fastest here.
        proven: Whether the kept graph, opened so, was proven equal to the reference.
        operators: Of the kept graph: operator -> number of nodes.
        attempts: One per tool, the original first.
    """

    kept: str
    optimization: Optimization
    proven: bool
    operators: Mapping[str, int]
    attempts: tuple[Attempt, ...]

    @property
    def kept_attempt(self) -> Attempt:
        """The attempt that was kept."""
        return next(attempt for attempt in self.attempts if attempt.tool == self.kept)

    def summary(self) -> str:
        """One line: ``kept onnxslim   1.04x, 49 -> 41 nodes   level all   4 tried, 2 proven equal``."""
        kept = self.kept_attempt
        ratio = "not timed" if kept.ratio is None else f"{kept.ratio:.2f}x"
        after = kept.n_nodes_before if kept.n_nodes_after is None else kept.n_nodes_after
        n_equal = sum(attempt.status in {"kept", "equal"} for attempt in self.attempts)
        proven = f"{n_equal} proven equal" if self.proven else "NOTHING PROVEN"
        n_unchanged = sum(attempt.status == "unchanged" for attempt in self.attempts)
        unchanged = f", {n_unchanged} unchanged" if n_unchanged else ""
        return (
            f"kept {self.kept}   {ratio}, {kept.n_nodes_before} -> {after} nodes   "
            f"level {self.optimization}   {len(self.attempts)} tried, {proven}{unchanged}"
        )

    def __str__(self) -> str:
        """Return the attempts as a table."""
        rows = [_HEAD, *(_row(attempt) for attempt in self.attempts)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
        lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            "kept": self.kept,
            "optimization": self.optimization,
            "proven": self.proven,
            "operators": dict(self.operators),
            "attempts": [asdict(attempt) for attempt in self.attempts],
        }


def _row(attempt: Attempt) -> tuple[str, ...]:
    after, size_bytes, difference = attempt.n_nodes_after, attempt.size_bytes, attempt.largest_difference
    return (
        attempt.tool,
        attempt.version or "-",
        attempt.status,
        "-" if after is None else f"{attempt.n_nodes_before} -> {after}",
        "-" if size_bytes is None else size_text(size_bytes),
        _share(attempt.n_names_after, attempt.n_names_before),
        _share(attempt.n_weights_after, attempt.n_weights_before),
        "-" if difference is None else f"{difference:.1e}",
        "-" if attempt.ratio is None else f"{attempt.ratio:.2f}x",
        attempt.optimization or "-",
        attempt.reason,
    )


def _share(part: int | None, whole: int | None) -> str:
    return "-" if part is None or whole is None else f"{part} of {whole}"
