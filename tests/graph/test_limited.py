from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from anyport.graph import limited

if TYPE_CHECKING:
    from pathlib import Path


def run(program: Path, text: str, memory_bytes: int = 1 << 30) -> subprocess.CompletedProcess[str]:
    program.write_text(text, encoding="utf-8")
    command = [sys.executable, "-P", limited.__file__, str(memory_bytes), str(program), "a", "b"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_program_gets_its_words(tmp_path: Path) -> None:
    done = run(tmp_path / "p.py", "import sys; print(__name__, sys.argv[1:])")
    assert (done.stdout, done.stderr) == ("__main__ ['a', 'b']\n", "")


def test_files_beside_it_do_not_stand_for_the_standard_library(tmp_path: Path) -> None:
    done = run(tmp_path / "p.py", "import inspect; print(inspect.signature.__module__)")
    assert done.stdout == "inspect\n"  # anyport/graph has a file inspect.py


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces RLIMIT_DATA")
def test_the_limits_stand(tmp_path: Path) -> None:
    done = run(tmp_path / "p.py", "import resource as r; print(r.getrlimit(r.RLIMIT_DATA), r.getrlimit(4))")
    assert done.stdout == f"{(1 << 30, 1 << 30)} (0, 0)\n"
    done = run(tmp_path / "p.py", "bytearray(1 << 30)", 100_000_000)
    assert done.stderr.splitlines()[-1] == "MemoryError"


@pytest.mark.skipif(sys.platform == "win32", reason="no segmentation fault to plant")
def test_a_segmentation_fault_says_where(tmp_path: Path) -> None:
    done = run(tmp_path / "p.py", "import faulthandler\ndef broken(): faulthandler._sigsegv()\nbroken()")
    assert done.returncode < 0
    assert "in broken" in done.stderr
