from __future__ import annotations

import json

import numpy as np
import pytest

from anyport.bench.blank import Blank
from anyport.bench.machine import this_machine
from anyport.bench.result import BenchReport, ContestResult, Row, Speedup, latency_of


def test_percentiles_of_all_runs() -> None:
    wall_s = np.arange(1, 101, dtype=np.float64).reshape(20, 5)
    found = latency_of(wall_s, wall_s / 2)
    assert (found.median_s, found.cpu_s, found.n_runs) == (50.5, 25.25, 100)
    assert found.p90_s == pytest.approx(90.1)
    assert found.p99_s == pytest.approx(99.01)


def test_too_few_runs_have_no_tail() -> None:
    found = latency_of(np.ones((9, 5)), np.ones((9, 5)))
    assert found.p99_s == Blank("p99 needs 100 runs, there were 45: raise --seconds")


def test_json_holds_numbers_and_reasons() -> None:
    times = np.ones((9, 5))
    speedup, why = Speedup(2.0, 1.9, 2.1), Blank("why not")
    row = Row("fp32", 1, latency_of(times, times), speedup, speedup, {1: 5.0, 8: why}, 0.5, why, 1000)
    report = BenchReport(this_machine(), (ContestResult("network", {"batch": 1}, "fp32", (row,)),))
    record = json.loads(json.dumps(report.to_json()))
    assert record["machine"]["cpu"]
    [contest] = record["contests"]
    assert contest["rows"][0]["throughput"] == {"1": 5.0, "8": {"why": "why not"}}
    assert contest["rows"][0]["peak_bytes"] == {"why": "why not"}
    assert contest["rows"][0]["latency"]["median_s"] == 1.0
    assert contest["rows"][0]["speedup_cpu"] == {"median": 2.0, "low": 1.9, "high": 2.1}
