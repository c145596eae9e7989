from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
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


_SOURCE = """
from pathlib import Path

from anyport.graph.isolation import Limits, run_limited

HERE = Path(__file__).parent


def make():  # as a simplifier does: a program of its own, for which the build waits
    run_limited(HERE / "tool.py", [], Limits(1 << 30, 120), HERE / "place")
"""
_TOOL = """
import os
import time
from pathlib import Path

place = Path("pid.new")
place.write_text(str(os.getpid()))
place.rename("pid")
time.sleep(120)
"""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_build_that_is_terminated_leaves_nothing_and_its_tools_end(tmp_path: Path) -> None:
    """As services and CI end a program: SIGTERM, at a time when the build waits for a tool."""
    (tmp_path / "m.py").write_text(_SOURCE, encoding="utf-8")
    (tmp_path / "tool.py").write_text(_TOOL, encoding="utf-8")
    (tmp_path / "place").mkdir()
    words = ["m.py:make", "--input", "x=float32[1, 2]", "--output", "y=float32[1, 2]", "-o", "x.port"]
    with subprocess.Popen(
        [sys.executable, "-m", "anyport", "build", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        pid_file, deadline_s = tmp_path / "place" / "pid", time.monotonic() + 120
        while not pid_file.exists() and child.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
        hidden = [path for path in tmp_path.iterdir() if path.name.startswith(".x.port.building-")]
        child.terminate()
        _, errors = child.communicate(timeout=60)
    assert len(hidden) == 1, errors  # the build had begun to write
    assert (child.returncode, errors.splitlines()[-1]) == (143, "terminated")
    assert not [path.name for path in tmp_path.iterdir() if "x.port" in path.name]
    assert not _is_alive(int(pid_file.read_text()))
