from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from anyport.bundle import locking
from anyport.bundle.locking import try_lock

if TYPE_CHECKING:
    from pathlib import Path

_LOCK = (
    "import os, sys; from anyport.bundle.locking import try_lock\n"
    "print(try_lock(os.open(sys.argv[1], os.O_RDWR), if_unsupported=True))"
)


def lock_elsewhere(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _LOCK, str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_one_process_has_it_until_it_closes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"")
    descriptor = os.open(path, os.O_RDWR)
    assert try_lock(descriptor, if_unsupported=False)
    assert lock_elsewhere(path) == "False"
    os.close(descriptor)
    assert lock_elsewhere(path) == "True"


def test_two_descriptors_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"")
    first, second = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    assert try_lock(first, if_unsupported=False)
    assert not try_lock(second, if_unsupported=True)
    os.close(first)
    assert try_lock(second, if_unsupported=False)
    os.close(second)


@pytest.mark.parametrize("answer", [True, False])
def test_a_file_system_without_locks_gives_the_answer_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, *, answer: bool
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locking, "_lock", refuse)
    assert try_lock(0, if_unsupported=answer) is answer
