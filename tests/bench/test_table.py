"""The report as lines."""

from __future__ import annotations

import numpy as np
import pytest

from anyport.bench.blank import Blank
from anyport.bench.machine import Machine
from anyport.bench.result import BenchReport, ContestResult, Row, Speedup, latency_of
from anyport.bench.table import duration_text, table_of

MACHINE = Machine("x86_64", "Linux", "3.11", "A CPU", ("avx2",), 2, 0.5, {"anyport": "1", "numpy": "2"})


def example() -> BenchReport:
    many, few = np.full((60, 5), 0.0123), np.full((9, 1), 0.002)
    one, fast = Speedup(1.0, 1.0, 1.0), Speedup(6.15, 6.0, 6.3)
    dead = Blank("it does not open")
    rows = (
        Row("pytorch", 1, latency_of(many, many), one, one, {1: 81.3, 8: 1234.5}, 0.5, 9_000_000, 44_000_000),
        Row(
            "int8", 1, latency_of(few, few), fast, Blank("no wall"), {1: 500.0, 8: Blank("batch 8: too big")},
            0.0000312, Blank("no peak here"), 11_000_000,
        ),
        Row("bad", 1, dead, dead, dead, dead, dead, dead, 12),
    )  # fmt: skip
    return BenchReport(MACHINE, (ContestResult("network", {"batch": 1}, "pytorch", rows),))


def test_the_table() -> None:
    assert (
        table_of(example())
        == """\
network   batch=1, 1 thread; times faster than pytorch
             median       p90       p99        by CPU time   by wall time      load     peak       size
  pytorch   12.3 ms   12.3 ms   12.3 ms                  1              1    500 ms   9.0 MB    44.0 MB
  int8         2 ms      2 ms         —   6.15 (6.00–6.30)              —   31.2 µs        —    11.0 MB
  bad             —         —         —                  —              —         —        —   12 bytes
  items per second at batch      1      8
  pytorch                     81.3   1234
  int8                         500      —
  — int8: no wall
  — int8: no peak here
  — int8: p99 needs 100 runs, there were 9: raise --seconds
  — int8: batch 8: too big
  — bad: it does not open

  A CPU (avx2), 2 cores, load 0.50 per core
  Linux, Python 3.11, anyport 1, numpy 2"""
    )


def test_without_a_batch_there_is_no_second_table() -> None:
    times = np.ones((9, 1))
    one, why = Speedup(1.0, 1.0, 1.0), Blank("there is no batch")
    row = Row("a", 2, latency_of(times, times), one, one, why, 1.0, 1, 1)
    lines = table_of(BenchReport(MACHINE, (ContestResult("a.onnx", {}, "a", (row,)),))).splitlines()
    assert lines[0] == "a.onnx   fixed sizes, 2 threads; times faster than a"
    assert "  — there is no batch" in lines
    assert not any("items per second" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1e-6, "1 µs"), (0.00099, "990 µs"), (0.001, "1 ms"), (0.9, "900 ms"), (75, "75.00 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
