from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from anyport.graph.isolation import Limits, run_limited
from tests.graph.smallgraphs import PLANTED, perceptron

if TYPE_CHECKING:
    from pathlib import Path

ROOMY = Limits(2 << 30, 60.0)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces RLIMIT_DATA")


def ending(name: str, folder: Path, limits: Limits = ROOMY) -> str:
    source = perceptron(folder / "in.onnx")
    words = (name, str(source), str(folder / "out.onnx"))
    return run_limited(PLANTED, words, limits, folder).problem


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("abort", r"crashed: SIGABRT"),
        ("honest", ""),
        ("nothing", ""),
        ("raising", "ended with exit code 1: ValueError: this operator is too hard for me"),
        ("talkative", r"stopped: it wrote more than 67\.1 MB of messages"),
    ],
)
def test_how_a_program_ends_is_said_in_one_line(name: str, expected: str, tmp_path: Path) -> None:
    assert re.fullmatch(expected, ending(name, tmp_path))


def test_a_program_that_hangs_is_stopped(tmp_path: Path) -> None:
    started_s = time.monotonic()
    assert ending("hang", tmp_path, Limits(2 << 30, 2.0)) == "stopped: not ready after 2 s"
    assert time.monotonic() - started_s < 30  # the program sleeps for ten minutes


@linux_only
def test_a_program_that_eats_memory_is_stopped(tmp_path: Path) -> None:
    found = ending("hungry", tmp_path, Limits(600_000_000, 60.0))
    assert found == "ran out of memory: the limit is 600.0 MB"


@linux_only
def test_a_limit_that_the_imports_do_not_fit_in_is_said_so(tmp_path: Path) -> None:
    assert ending("honest", tmp_path, Limits(20_000_000, 60.0)) == "ran out of memory: the limit is 20.0 MB"


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
def test_what_a_program_leaves_behind_is_ended(tmp_path: Path) -> None:
    assert ending("leaves_a_child", tmp_path) == ""
    assert _has_ended(int((tmp_path / "child.pid").read_text()))


_WAITING = """
import sys
from pathlib import Path
from anyport.graph.isolation import Limits, run_limited
run_limited(Path(sys.argv[1]), (), Limits(2 << 30, 600.0), Path(sys.argv[1]).parent)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_program_ends_with_whoever_waits_for_it(how: signal.Signals, tmp_path: Path) -> None:
    program, pid = tmp_path / "program.py", tmp_path / "program.pid"
    program.write_text(
        "import os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'new')!r}).write_text(str(os.getpid()))\n"
        f"os.rename({str(tmp_path / 'new')!r}, {str(pid)!r})\n"
        "time.sleep(600)\n",
        encoding="utf-8",
    )
    with subprocess.Popen([sys.executable, "-c", _WAITING, str(program)]) as parent:
        for _ in range(600):
            if pid.exists():
                break
            time.sleep(0.05)
        parent.send_signal(how)
    assert _has_ended(int(pid.read_text(encoding="utf-8")))


def _has_ended(pid: int) -> bool:
    for _ in range(100):
        if not _is_running(pid):
            return True
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # nobody waits for an orphan in some containers: it is dead all the same
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_messages_lose_folders_that_are_gone_and_control_characters(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"raise SystemExit('red \\x1b[31mno file {tmp_path}/a.onnx')", encoding="utf-8")
    found = run_limited(program, (), ROOMY, tmp_path)
    assert found.problem == "ended with exit code 1: red  [31mno file …/a.onnx"
    assert found.wall_s > 0
