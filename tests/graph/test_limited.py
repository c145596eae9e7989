from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from anyport.graph import limited

if TYPE_CHECKING:
    from pathlib import Path


def run(program: Path, text: str, memory_bytes: int = 1 << 30) -> subprocess.CompletedProcess[str]:
    program.write_text(text, encoding="utf-8")
    bounds = (str(memory_bytes), "100", str(os.getpid()))
    command = [sys.executable, "-P", limited.__file__, *bounds, str(program), "a", "b"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_program_gets_its_words(tmp_path: Path) -> None:
    done = run(tmp_path / "p.py", "import sys; print(__name__, sys.argv[1:])")
    assert (done.stdout, done.stderr) == ("__main__ ['a', 'b']\n", "")


def test_files_beside_it_do_not_stand_for_the_standard_library(tmp_path: Path) -> None:
    done = run(tmp_path / "p.py", "import inspect; print(inspect.signature.__module__)")
    assert done.stdout == "inspect\n"  # anyport/graph has a file inspect.py


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces RLIMIT_DATA")
def test_the_limits_stand(tmp_path: Path) -> None:
    text = "print(*(r.getrlimit(limit) for limit in (r.RLIMIT_DATA, r.RLIMIT_CPU, r.RLIMIT_CORE)))"
    done = run(tmp_path / "p.py", f"import resource as r; {text}")
    assert done.stdout == f"{(1 << 30, 1 << 30)} (100, 100) (0, 0)\n"
    done = run(tmp_path / "p.py", "bytearray(1 << 30)", 100_000_000)
    assert done.stderr.splitlines()[-1] == "MemoryError"


@pytest.mark.skipif(sys.platform == "win32", reason="no segmentation fault to plant")
def test_a_segmentation_fault_says_where(tmp_path: Path) -> None:
    done = run(tmp_path / "p.py", "import faulthandler\ndef broken(): faulthandler._sigsegv()\nbroken()")
    assert done.returncode < 0
    assert "in broken" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_process_whose_parent_is_gone_already_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("print('began')", encoding="utf-8")
    command = [sys.executable, "-P", limited.__file__, str(1 << 30), "100", "1", str(tmp_path / "p.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", -signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems end it otherwise")
def test_the_limit_on_cpu_time_ends_a_process_that_nobody_waits_for(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("while True: pass", encoding="utf-8")
    bounds = (str(1 << 30), "1", str(os.getpid()))
    command = [sys.executable, "-P", limited.__file__, *bounds, str(tmp_path / "p.py")]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
