from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "stop_everywhere.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a build at every write: needs fork()")


def _stop_everywhere(how: str, folder: Path) -> tuple[dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), how, str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "statuses"),
    [
        ("kill", {-signal.SIGKILL}),
        # Ctrl-C while the report is written, after the bundle has its name, stops the process as well
        ("interrupt", {3}),
        # 4: the disk was full when nothing was left to write but what needs no more than 64 bytes
        ("full", {3, 4}),
    ],
)
def test_a_build_that_is_stopped_leaves_no_output_or_a_whole_one(
    how: str, statuses: set[int], tmp_path: Path
) -> None:
    found, errors = _stop_everywhere(how, tmp_path)
    *stops, unharmed = found["stops"]
    assert len(stops) > 10
    assert unharmed["status"] == 0
    assert {stop["status"] for stop in stops} <= statuses
    assert {stop["output"] for stop in stops} <= {"absent", "whole"}
    assert stops[0]["output"] == "absent"
    # the build that went on after all those stops
    assert found["last"] == {"output": "whole", "others": ["m.report.json"]}
    assert found["hidden"] == []
    if how == "full":
        lines = [line for line in errors.splitlines() if not line.startswith("  ")]
        assert lines
        assert all(line.startswith("BundleError: cannot write '") for line in lines), lines
