"""The report for people: a table for each contest and number of threads, and below it why a cell is blank."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from anyport.bench.blank import Blank
from anyport.bundle.disk import size_text
from anyport.verify.sizes import sizes_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from anyport.bench.result import BenchReport, ContestResult, Row, Speedup

_NO_NUMBER: Final = "—"
_HEAD: Final = ("median", "p90", "p99", "by CPU time", "by wall time", "load", "peak", "size")


def table_of(report: BenchReport) -> str:
    """Return the whole report as text."""
    lines: list[str] = []
    for contest in report.contests:
        lines += [*_contest_lines(contest), ""]
    return "\n".join([*lines, *(f"  {line}" for line in report.machine.lines())])


def duration_text(seconds: float) -> str:
    """Write a duration for people.

    >>> duration_text(0.0000312), duration_text(0.0123), duration_text(2.5)
    ('31.2 µs', '12.3 ms', '2.50 s')
    """
    if seconds < 0.001:  # noqa: PLR2004 -- the units themselves
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def _contest_lines(contest: ContestResult) -> list[str]:
    lines: list[str] = []
    for n_threads, group in groupby(contest.rows, key=lambda row: row.n_threads):
        rows = list(group)
        noun = "thread" if n_threads == 1 else "threads"
        sizes = sizes_text(contest.sizes) or "fixed sizes"
        lines.append(f"{contest.part}   {sizes}, {n_threads} {noun}; times faster than {contest.base}")
        lines += _aligned([("", *_HEAD), *(_cells(row) for row in rows)])
        lines += _throughput_lines(rows)
        lines += [f"  {_NO_NUMBER} {reason}" for reason in dict.fromkeys(_reasons(rows))]
    return lines


def _cells(row: Row) -> tuple[str, ...]:
    latency = row.latency
    times: tuple[str, ...] = (_NO_NUMBER,) * 3
    if not isinstance(latency, Blank):
        times = tuple(_duration(value) for value in (latency.median_s, latency.p90_s, latency.p99_s))
    return (
        row.name,
        *times,
        _speedup(row.speedup_cpu),
        _speedup(row.speedup_wall),
        _duration(row.load_s),
        _size(row.peak_bytes),
        _size(row.size_bytes),
    )


def _throughput_lines(rows: Sequence[Row]) -> list[str]:
    by_name = {row.name: row.throughput for row in rows if not isinstance(row.throughput, Blank)}
    if not by_name:
        return []
    batches = sorted({batch for found in by_name.values() for batch in found})
    head = ("items per second at batch", *(str(batch) for batch in batches))
    cells = [(name, *(_rate(found[batch]) for batch in batches)) for name, found in by_name.items()]
    return _aligned([head, *cells])


def _reasons(rows: Iterable[Row]) -> Iterator[str]:
    """Yield why cells are blank: once for the whole table if it is so for every row, else with the name."""
    whys = {row.name: list(dict.fromkeys(blank.why for blank in _blanks(row))) for row in rows}
    shared = set.intersection(*(set(found) for found in whys.values()))
    for name, found in whys.items():
        yield from (why if why in shared else f"{name}: {why}" for why in found)


def _blanks(row: Row) -> list[Blank]:
    values = [row.speedup_cpu, row.speedup_wall, row.load_s, row.peak_bytes, row.size_bytes]
    values += [row.latency if isinstance(row.latency, Blank) else row.latency.p99_s]
    by_batch = row.throughput
    values += [by_batch] if isinstance(by_batch, Blank) else list(by_batch.values())
    return [value for value in values if isinstance(value, Blank)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align names at the left and numbers at the right, three spaces apart."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{row[0]:<{widths[0]}}"]
        cells += [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  " + "   ".join(cells).rstrip())
    return lines


def _duration(value: float | Blank) -> str:
    return _NO_NUMBER if isinstance(value, Blank) else duration_text(value)


def _size(value: int | Blank) -> str:
    return _NO_NUMBER if isinstance(value, Blank) else size_text(value)


def _rate(value: float | Blank) -> str:
    if isinstance(value, Blank):
        return _NO_NUMBER
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 -- three digits either way


def _speedup(value: Speedup | Blank) -> str:
    if isinstance(value, Blank):
        return _NO_NUMBER
    if value.low == value.high == 1:
        return "1"
    return f"{value.median:.2f} ({value.low:.2f}–{value.high:.2f})"
