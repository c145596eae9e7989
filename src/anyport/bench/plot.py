"""The report as a picture: latency, speedup, throughput, memory. Needs the extra ``plot``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from anyport.bench.blank import Blank
from anyport.errors import UsageError, require
from anyport.verify.sizes import sizes_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anyport.bench.result import BenchReport, ContestResult, Row

FORMATS: Final = (".png", ".svg")
_STEP: Final = "drawing the plot"
_ROW_INCHES: Final = 0.32
_MEGABYTE: Final = 1e6
_STYLE: Final = {"svg.hashsalt": "anyport", "font.size": 9.0}  # the same report gives the same bytes


def check_plot(path: Path) -> None:
    """Check, before anything is measured, that a plot can be drawn and has a format that is known.

    Raises:
        UsageError: The name does not end in ``.svg`` or ``.png``.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise UsageError(
            f"'{path.name}' is no name for a report",
            do="end it in .svg or .png for a plot, .json for the numbers",
        )
    require("matplotlib", extra="plot", step=_STEP)


def draw(report: BenchReport, path: Path, picture_format: str) -> None:
    """Draw four panels for each contest and write them to ``path``.

    Args:
        report: What was measured.
        path: The file, whatever its name.
        picture_format: ``svg`` or ``png``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="plot", step=_STEP)
    figures = require("matplotlib.figure", extra="plot", step=_STEP)
    n_rows = max(len(contest.rows) for contest in report.contests)
    height = len(report.contests) * (2.2 + _ROW_INCHES * n_rows) + 0.6
    with matplotlib.rc_context(_STYLE):
        figure = figures.Figure(figsize=(16, height), layout="constrained")
        figure.supxlabel("\n".join(report.machine.lines()), fontsize=7)
        panels = figure.subplots(len(report.contests), 4, squeeze=False)
        for axes, contest in zip(panels, report.contests, strict=True):
            _draw_contest(axes, contest)
        # without a date in it
        metadata = {"Date": None} if picture_format == "svg" else {}
        figure.savefig(path, format=picture_format, metadata=metadata, dpi=110)


def _draw_contest(panels: Sequence[Any], contest: ContestResult) -> None:
    sizes = sizes_text(contest.sizes) or "fixed sizes"
    _draw_latency(panels[0], contest.rows)
    panels[0].set_title(f"{contest.part}: latency in ms (mark: p90)\n{sizes}")
    _draw_speedup(panels[1], contest.rows)
    panels[1].set_title(f"times faster than {contest.base}, by CPU time\n(mark: quartiles)")
    _draw_throughput(panels[2], contest.rows)
    panels[2].set_title("items per second by batch")
    _draw_memory(panels[3], contest.rows)
    panels[3].set_title("MB: peak memory (dark), size (light)")


def _label(row: Row) -> str:
    return f"{row.name}, {row.n_threads}t"


def _bars(axes: Any, rows: Sequence[Row], length: Callable[[Row], float | Blank]) -> None:  # noqa: ANN401 -- matplotlib's axes
    """Draw a bar for each row; where there is none the reason stands instead."""
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.invert_yaxis()
    for place, row in enumerate(rows):
        value = length(row)
        if isinstance(value, Blank):
            axes.text(0, place, f" — {value.why[:60]}", va="center", fontsize=6)
        else:
            axes.barh(place, value, color=f"C{row.n_threads - 1}", height=0.6)


def _draw_latency(axes: Any, rows: Sequence[Row]) -> None:  # noqa: ANN401 -- matplotlib's axes
    _bars(
        axes, rows, lambda row: row.latency if isinstance(row.latency, Blank) else row.latency.median_s * 1e3
    )
    for place, row in enumerate(rows):
        if not isinstance(row.latency, Blank):
            axes.plot(row.latency.p90_s * 1e3, place, "k|", markersize=8)
    axes.set_xlim(left=0)


def _draw_speedup(axes: Any, rows: Sequence[Row]) -> None:  # noqa: ANN401 -- matplotlib's axes
    _bars(
        axes,
        rows,
        lambda row: row.speedup_cpu if isinstance(row.speedup_cpu, Blank) else row.speedup_cpu.median,
    )
    for place, row in enumerate(rows):
        if not isinstance(row.speedup_cpu, Blank):
            axes.plot([row.speedup_cpu.low, row.speedup_cpu.high], [place, place], "k-", linewidth=1)
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_xlim(left=0)


def _draw_throughput(axes: Any, rows: Sequence[Row]) -> None:  # noqa: ANN401 -- matplotlib's axes
    batches: set[int] = set()
    for row in rows:
        if isinstance(row.throughput, Blank):
            continue
        points = {b: rate for b, rate in row.throughput.items() if not isinstance(rate, Blank)}
        axes.plot(list(points), list(points.values()), marker="o", markersize=3, label=_label(row))
        batches |= points.keys()
    if not batches:
        whys = [row.throughput.why for row in rows if isinstance(row.throughput, Blank)]
        axes.text(0.5, 0.5, "\n".join(dict.fromkeys(whys)), ha="center", fontsize=6, wrap=True)
        return
    axes.set_xscale("log")
    axes.set_xticks(sorted(batches), [str(batch) for batch in sorted(batches)])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)


def _draw_memory(axes: Any, rows: Sequence[Row]) -> None:  # noqa: ANN401 -- matplotlib's axes
    _bars(axes, rows, lambda row: _megabytes(row.peak_bytes))
    for place, row in enumerate(rows):
        size = _megabytes(row.size_bytes)
        if not isinstance(size, Blank):
            axes.barh(place + 0.35, size, color="lightgrey", height=0.2)
    axes.set_xlim(left=0)


def _megabytes(value: int | Blank) -> float | Blank:
    return value if isinstance(value, Blank) else value / _MEGABYTE
