from __future__ import annotations

import hashlib
import io
import zipfile
from typing import TYPE_CHECKING

import pytest

from anyport.bundle import open_bundle, pack, zipform
from anyport.bundle.zipform import ZipEntry, closing, extract_zip, local_header
from tests.bundle.examples import files_of, make_bundle

if TYPE_CHECKING:
    from pathlib import Path

GOLDEN = (
    b"PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00!\x00\x86\xa6\x106\x05\x00\x00\x00\x05\x00\x00\x00\x03\x00\x00\x00a/b"
    b"hello"
    b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x00\x00\x00\x00!\x00\x86\xa6\x106\x05\x00\x00\x00\x05\x00\x00\x00\x03\x00"
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xa4\x81\x00\x00\x00\x00a/b"
    b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x001\x00\x00\x00&\x00\x00\x00\x00\x00"
)


def test_golden_bytes() -> None:
    entry = ZipEntry("a/b", 5, 0x3610A686, 0)
    assert local_header(entry) + b"hello" + closing([entry]) == GOLDEN
    with zipfile.ZipFile(io.BytesIO(GOLDEN)) as archive:
        assert archive.read("a/b") == b"hello"


def test_the_form_of_numbers_beyond_32_bits() -> None:
    large = ZipEntry("w", 5 << 30, 1, 0)
    after = ZipEntry("x", 1, 2, large.end)
    assert local_header(large)[18:26] == b"\xff" * 8
    assert local_header(large)[-20:] == b"\x01\x00\x10\x00" + (5 << 30).to_bytes(8, "little") * 2
    tail = closing([large, after])
    listed = zipfile.ZipFile(_Holes(after.end, tail)).infolist()
    assert [(each.filename, each.file_size, each.header_offset) for each in listed] == [
        ("w", 5 << 30, 0),
        ("x", 1, large.end),
    ]


class _Holes(io.BytesIO):
    """An archive of which only the end is there."""

    def __init__(self, start: int, tail: bytes) -> None:
        super().__init__(tail)
        self._start = start

    def seek(self, offset: int, whence: int = 0) -> int:
        return super().seek(offset if whence else max(offset - self._start, 0), whence) + self._start

    def tell(self) -> int:
        return super().tell() + self._start


@pytest.mark.parametrize("limit", [1, 100, 1000])
def test_small_files_in_the_large_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(zipform, "FULL_32", limit)
    monkeypatch.setattr(zipform, "FULL_16", 2)
    monkeypatch.setattr(zipform._Reader, "small", _small_anyway)
    folder = make_bundle(tmp_path / "m.port")
    with open_bundle(pack(folder, tmp_path / "m.zip")) as bundle:
        bundle.check()
    with zipfile.ZipFile(tmp_path / "m.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files_of(folder)


def _small_anyway(reader: zipform._Reader, name: str, limit_bytes: int) -> bytes:
    """Read the size of the manifest from its 64 bits; it never has so many outside this test."""
    head = reader._archive.read(400)
    reader._archive.seek(-len(head), 1)
    size_bytes = int.from_bytes(head[22:26], "little")
    if size_bytes == 0xFFFFFFFF:
        size_bytes = int.from_bytes(head[34 + len(name) :][:8], "little")
    assert size_bytes <= limit_bytes
    reader._enter(name, size_bytes)
    return b"".join(reader._blocks(size_bytes))


def test_any_tool_reads_it(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    with zipfile.ZipFile(pack(folder, tmp_path / "m.zip")) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[:2] == ["manifest.json", "SEAL"]
        assert archive.namelist()[2:] == sorted(archive.namelist()[2:])
        assert {name: archive.read(name) for name in archive.namelist()} == files_of(folder)


def test_extracting_gives_the_files(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    (tmp_path / "out").mkdir()
    manifest = extract_zip(pack(folder, tmp_path / "m.zip"), tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(folder)
    for entry in manifest.files:
        assert hashlib.sha256((tmp_path / "out" / entry.path).read_bytes()).hexdigest() == entry.sha256
