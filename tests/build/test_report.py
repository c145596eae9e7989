from __future__ import annotations

import json

from anyport.bench.machine import cpu_flags, cpu_name
from anyport.build.report import machine_report


def test_a_report_says_what_machine_it_is() -> None:
    report = machine_report()
    assert report["cpu"] == cpu_name() != ""
    assert report["isa"] == cpu_flags()
    assert report["peak_memory_bytes"] > 10_000_000
    assert report["packages"]["numpy"]
    json.dumps(report)
