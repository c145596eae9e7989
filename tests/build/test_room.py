from __future__ import annotations

from typing import TYPE_CHECKING

from anyport.build import room

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TEXT = (
    "MemTotal:       16000 kB\nMemFree:           10 kB\nMemAvailable:    2000 kB\nSwapFree:        3000 kB\n"
)


def test_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "meminfo"
    path.write_text(TEXT, encoding="ascii")
    monkeypatch.setattr(room, "_MEMORY", path)
    assert room.free_memory_bytes() == 2000 * 1024
    assert room.free_memory_bytes(with_swap=True) == 5000 * 1024
    path.write_text("MemFree: 10 kB\n", encoding="ascii")
    assert room.free_memory_bytes() is None
    monkeypatch.setattr(room, "_MEMORY", tmp_path / "none")
    assert room.free_memory_bytes() is None
