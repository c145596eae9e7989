"""The most memory that a block needed of its own."""

from __future__ import annotations

import mmap
import sys
import time
from typing import TYPE_CHECKING

import pytest

from anyport.task import memory_peak
from anyport.task.memory_peak import PeakMemory, give_back, own_memory

if TYPE_CHECKING:
    from pathlib import Path

MB = 10**6


def held(n_bytes: int) -> mmap.mmap:
    """Return pages of its own: an array may come out of memory that the C library has kept."""
    pages = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for _ in range(n_bytes // MB):
        pages.write(b"1" * MB)
    return pages


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells anonymous memory")
def test_what_was_held_for_a_while_is_seen_and_no_mapped_file_is(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"1" * 60 * MB)
    with (
        PeakMemory() as peak,
        (tmp_path / "weights").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert sum(mapped[i] for i in range(0, len(mapped), 4096)) > 0
        pages = held(50 * MB)
        time.sleep(0.1)
        pages.close()
        time.sleep(0.05)
    assert peak.above_bytes is not None
    assert 45 * MB < peak.above_bytes < 58 * MB
    later = held(80 * MB)
    assert peak.above_bytes < 58 * MB  # nobody looks any more
    later.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells anonymous memory")
def test_the_end_of_a_short_block_is_seen() -> None:
    with PeakMemory() as peak:
        pages = held(50 * MB)
    assert (peak.above_bytes or 0) > 45 * MB
    pages.close()


def test_where_the_system_does_not_say_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for content in (None, "VmRSS: 5 kB\n"):
        status = tmp_path / "status"
        if content is not None:
            status.write_text(content, "ascii")
        monkeypatch.setattr(memory_peak, "_STATUS", status)
        assert own_memory() is None
        with PeakMemory() as peak:
            pass
        assert peak.above_bytes is None


def test_giving_back_needs_no_particular_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    give_back()
    monkeypatch.setattr(memory_peak.ctypes, "CDLL", lambda _: object())
    give_back()
