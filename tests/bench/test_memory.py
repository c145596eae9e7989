from __future__ import annotations

import mmap
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.bench import memory
from anyport.bench.blank import Blank
from anyport.bench.memory import MemoryMark, above, anonymous_memory, mark_memory, peak_since
from anyport.task import memory_peak

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(sys.platform not in {"linux", "darwin"}, reason="peak memory is read on Linux and macOS")
def test_what_was_needed_and_given_back_is_seen() -> None:
    freed = [np.ones(100_000, np.uint8) for _ in range(600)]  # below the size that glibc maps by itself
    del freed
    mark = mark_memory()
    np.ones(50_000_000, np.uint8).sum()
    found = peak_since(mark)
    # on macOS the peak of other tests may hide this one
    assert isinstance(found, Blank) or 40_000_000 < found < 200_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets a peak")
def test_an_earlier_peak_does_not_count() -> None:
    np.ones(60_000_000, np.uint8).sum()
    found = peak_since(mark_memory())
    assert isinstance(found, Blank) or found < 30_000_000


@pytest.mark.parametrize(
    ("mark", "peak_bytes", "expected"),
    [
        (MemoryMark(100, 100), 170, 70),
        (MemoryMark(100, 100), 100, 0),
        (MemoryMark(100, 150), 170, 70),
        (MemoryMark(100, 150), 150, Blank("the process had needed more memory before, for its imports")),
    ],
)
def test_a_peak_is_counted_above_the_mark(mark: MemoryMark, peak_bytes: int, expected: int | Blank) -> None:
    assert above(mark, peak_bytes) == expected


def test_a_blank_stays_blank() -> None:
    assert peak_since(Blank("not here")) == Blank("not here")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no /proc")
def test_where_the_system_says_nothing_there_is_no_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    from pathlib import Path

    monkeypatch.setattr(memory, "_STATUS", Path(str(tmp_path)) / "absent")
    monkeypatch.setattr(memory, "_CLEAR", Path(str(tmp_path)) / "absent" / "too")
    assert mark_memory() == Blank(f"peak memory is not read on {sys.platform}")
    (Path(str(tmp_path)) / "absent").write_text("VmRSS:\t5 kB\n", "ascii")
    assert isinstance(mark_memory(), Blank)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells anonymous memory")
def test_anonymous_memory_is_what_is_held_now() -> None:
    before = anonymous_memory()
    # pages of its own: an array may come out of memory that the allocator has kept
    held = mmap.mmap(-1, 50_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for _ in range(50):
        held.write(b"1" * 1_000_000)
    during = anonymous_memory()
    assert isinstance(before, int)
    assert isinstance(during, int)
    assert 45_000_000 < during - before < 60_000_000
    held.close()
    after = anonymous_memory()
    assert isinstance(after, int)
    assert after - before < 10_000_000


def test_where_anonymous_memory_is_not_told_there_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory_peak, "_STATUS", tmp_path / "absent")
    assert anonymous_memory() == Blank(f"anonymous memory is not read on {sys.platform}")


@pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is read on Linux")
def test_objects_in_memory_that_was_freed_before_are_seen() -> None:
    """Freed arrays leave holes in the heap; arrays that fill them are memory held again."""
    holes = [np.ones(100_000, np.uint8) for _ in range(600)]
    between = holes[1::2]  # these hold the heap up, so that the holes stay in it
    del holes
    before = anonymous_memory()
    held = [np.ones(100_000, np.uint8) for _ in range(200)]
    after = anonymous_memory()
    assert isinstance(before, int)
    assert isinstance(after, int)
    assert len(between) == 300
    assert after - before > 0.9 * sum(one.nbytes for one in held)
