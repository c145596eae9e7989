"""The zip form of a bundle: one archive whose every byte follows from the bundle.

Entries are stored, in one order, with fixed times and rights, so the same bundle is the same archive on
every machine. The reader knows from the manifest what each byte outside the files must be and accepts
nothing else: there is no compression to bomb, no name to trust, no link, no second entry of a name.
The format is ordinary (PKWARE APPNOTE 6.3.10, with ZIP64 where sizes need it); any tool unpacks it.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from anyport.bundle.disk import BLOCK_BYTES, disk_errors, open_regular, read_blocks
from anyport.bundle.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MAX_SEAL_BYTES,
    SEAL_NAME,
    FileEntry,
    Manifest,
    decode_sealed,
)
from anyport.bundle.paths import shown
from anyport.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO
    from pathlib import Path

MAGIC: Final = b"PK\x03\x04"
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END_64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64: Final = struct.Struct("<4sIQI")
_CRC_AT: Final = 14
_SIZE_AT: Final = 22
_NAME_AT: Final = 26
_FLAGS_AT: Final = 6
_DATE: Final = (0, 0x21)  # 1980-01-01 00:00:00, the first that the format knows
_VERSION, _VERSION_64 = 20, 45
_MADE_ON_UNIX: Final = 3 << 8
_RIGHTS: Final = 0o100644 << 16
FULL_32 = 0xFFFFFFFF  # from here on sizes and offsets are written in 64 bits
FULL_16 = 0xFFFF


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One file in the archive: where its local header starts, and what is in that."""

    path: str
    size_bytes: int
    crc32: int
    offset: int

    @property
    def end(self) -> int:
        """Where the next entry starts."""
        return self.offset + len(local_header(self)) + self.size_bytes


def local_header(entry: ZipEntry) -> bytes:
    """Return the bytes before the content of a file."""
    size, extra = _wide([entry.size_bytes, entry.size_bytes])
    version = _VERSION_64 if extra else _VERSION
    name = entry.path.encode("ascii")
    fixed = _LOCAL.pack(MAGIC, version, 0, 0, *_DATE, entry.crc32, *size, len(name), len(extra))
    return fixed + name + extra


def _central_header(entry: ZipEntry) -> bytes:
    (size, _, offset), extra = _wide([entry.size_bytes, entry.size_bytes, entry.offset])
    version = _VERSION_64 if extra else _VERSION
    name = entry.path.encode("ascii")
    words = (version | _MADE_ON_UNIX, version, 0, 0, *_DATE, entry.crc32, size, size)
    return (
        _CENTRAL.pack(b"PK\x01\x02", *words, len(name), len(extra), 0, 0, 0, _RIGHTS, offset) + name + extra
    )


def _wide(numbers: Sequence[int]) -> tuple[list[int], bytes]:
    """Return the numbers as they stand in 32 bits, and the extra field with those that do not fit."""
    large = [number for number in numbers if number >= FULL_32]
    extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    return [min(number, 0xFFFFFFFF) if number < FULL_32 else 0xFFFFFFFF for number in numbers], extra


def closing(entries: Sequence[ZipEntry]) -> bytes:
    """Return the bytes after the last file: the central directory and its end."""
    start = entries[-1].end
    directory = b"".join(_central_header(entry) for entry in entries)
    count, size = len(entries), len(directory)
    wide = b""
    if count >= FULL_16 or size >= FULL_32 or start >= FULL_32:
        versions = (_VERSION_64 | _MADE_ON_UNIX, _VERSION_64)
        wide = _END_64.pack(b"PK\x06\x06", 44, *versions, 0, 0, count, count, size, start)
        wide += _LOCATOR_64.pack(b"PK\x06\x07", 0, start + size, 1)
    count = 0xFFFF if count >= FULL_16 else count
    size, start = (0xFFFFFFFF if number >= FULL_32 else number for number in (size, start))
    return directory + wide + _END.pack(b"PK\x05\x06", 0, 0, count, count, size, start, 0)


def write_zip(archive: BinaryIO, folder: Path, manifest: Manifest, small: dict[str, bytes]) -> None:
    """Write a bundle into an archive; every digest is checked on the way.

    Args:
        archive: Open for writing, at its start.
        folder: The bundle.
        manifest: Of the bundle.
        small: ``manifest.json`` and ``SEAL``, as they were checked.

    Raises:
        BundleError: A file is not the one that was sealed.
        OSError: The archive cannot be written.
    """
    entries: list[ZipEntry] = []
    for name in (MANIFEST_NAME, SEAL_NAME):
        entry = ZipEntry(name, len(small[name]), zlib.crc32(small[name]), archive.tell())
        archive.write(local_header(entry) + small[name])
        entries.append(entry)
    entries.extend(_write_file(archive, folder, file) for file in manifest.files)
    archive.write(closing(entries))


def _write_file(archive: BinaryIO, folder: Path, file: FileEntry) -> ZipEntry:
    offset = archive.tell()
    archive.write(local_header(ZipEntry(file.path, file.size_bytes, 0, offset)))
    crc32, digest = 0, hashlib.sha256()
    for block in read_blocks(folder / file.path, file.size_bytes):
        crc32 = zlib.crc32(block, crc32)
        digest.update(block)
        archive.write(block)
    check_digest(file, digest.hexdigest(), str(folder))
    end = archive.tell()
    archive.seek(offset + _CRC_AT)
    archive.write(crc32.to_bytes(4, "little"))
    archive.seek(end)
    return ZipEntry(file.path, file.size_bytes, crc32, offset)


def check_digest(file: FileEntry, digest: str, where: str) -> None:
    """Refuse a file whose content is not the one that was sealed.

    Raises:
        BundleError: The digest is another one.
    """
    if digest != file.sha256:
        raise BundleError(
            f"'{file.path}' is not the file that was sealed: sha256 {digest[:12]}…, not {file.sha256[:12]}…",
            where=where,
            do="fetch the bundle again, or build it again",
        )


def extract_zip(path: Path, folder: Path) -> Manifest:
    """Unpack an archive into an empty folder; every byte of it is checked on the way.

    Memory does not grow with the archive, and no more is written than the archive has bytes.

    Raises:
        BundleError: It is not, byte by byte, the archive of a bundle.
    """
    with open_regular(path) as archive:
        reader = _Reader(archive, path)
        manifest_bytes = reader.small(MANIFEST_NAME, MAX_MANIFEST_BYTES)
        seal_bytes = reader.small(SEAL_NAME, MAX_SEAL_BYTES)
        manifest = decode_sealed(manifest_bytes, seal_bytes, str(path))
        reader.check_size(manifest)
        for name, content in ((MANIFEST_NAME, manifest_bytes), (SEAL_NAME, seal_bytes)):
            with disk_errors("write", folder / name, len(content)):
                (folder / name).write_bytes(content)
        for file in manifest.files:
            reader.extract(file, folder / file.path)
        reader.check_closing()
    return manifest


class _Reader:
    """Reads an archive from its first to its last byte, and knows beforehand what each must be."""

    def __init__(self, archive: FileIO, path: Path) -> None:
        self._archive = archive
        self._path = path
        self._entries: list[ZipEntry] = []

    def small(self, name: str, limit_bytes: int) -> bytes:
        """Read a small file whole; its header says its size."""
        head = self._peek(name)
        size_bytes = int.from_bytes(head[_SIZE_AT : _SIZE_AT + 4], "little")
        if size_bytes > limit_bytes:
            raise self._refusal(f"'{name}' has {size_bytes} bytes, at most {limit_bytes} are read")
        entry = self._enter(name, size_bytes)
        content = b"".join(self._blocks(size_bytes))
        self._check_crc(entry, zlib.crc32(content))
        return content

    def check_size(self, manifest: Manifest) -> None:
        """Refuse an archive that is longer or shorter than its manifest says."""
        entries = list(self._entries)
        for file in manifest.files:
            entries.append(ZipEntry(file.path, file.size_bytes, 0, entries[-1].end))
        expected = entries[-1].end + len(closing(entries))
        found = os.fstat(self._archive.fileno()).st_size
        if found != expected:
            raise self._refusal(f"it has {found} bytes, with its manifest it must have {expected}")

    def extract(self, file: FileEntry, path: Path) -> None:
        """Write one file and check it."""
        self._peek(file.path)
        entry = self._enter(file.path, file.size_bytes)
        crc32, digest = 0, hashlib.sha256()
        with disk_errors("write", path, file.size_bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as opened:
                for block in self._blocks(file.size_bytes):
                    crc32 = zlib.crc32(block, crc32)
                    digest.update(block)
                    opened.write(block)
        check_digest(file, digest.hexdigest(), str(self._path))
        self._check_crc(entry, crc32)

    def check_closing(self) -> None:
        """Refuse any byte of the central directory that does not follow from the files."""
        wanted = closing(self._entries)
        if b"".join(self._blocks(len(wanted))) != wanted:
            raise self._refusal("its central directory does not belong to its files")

    def _peek(self, name: str) -> bytes:
        """Return the next header without going past it, and explain what is plainly something else."""
        start = self._archive.tell()
        head = self._archive.read(_LOCAL.size)
        found = self._archive.read(int.from_bytes(head[_NAME_AT : _NAME_AT + 2], "little")) if head else b""
        self._archive.seek(start)
        if len(head) < _LOCAL.size or not head.startswith(MAGIC):
            raise self._refusal(f"'{name}' is missing")
        flags, method = struct.unpack_from("<2H", head, _FLAGS_AT)
        if found != name.encode("ascii"):
            text = found.decode("ascii", "backslashreplace")
            raise self._refusal(f"it holds {shown(text)} where '{name}' must be")
        if flags & 1 or method:
            raise self._refusal(f"'{name}' is {'encrypted' if flags & 1 else 'compressed'}")
        return head

    def _enter(self, name: str, size_bytes: int) -> ZipEntry:
        """Go past a local header, which must be exactly the one that is written."""
        start = self._archive.tell()
        head = self._archive.read(_LOCAL.size)
        entry = ZipEntry(name, size_bytes, int.from_bytes(head[_CRC_AT : _CRC_AT + 4], "little"), start)
        wanted = local_header(entry)
        if head + self._archive.read(len(wanted) - len(head)) != wanted:
            raise self._refusal(f"the header of '{name}' is not the one that is written")
        self._entries.append(entry)
        return entry

    def _blocks(self, size_bytes: int) -> Iterator[bytes]:
        while size_bytes > 0:
            with disk_errors("read", self._path):
                block = self._archive.read(min(BLOCK_BYTES, size_bytes))
            if not block:
                raise self._refusal("it ends too early")
            size_bytes -= len(block)
            yield block

    def _check_crc(self, entry: ZipEntry, crc32: int) -> None:
        if crc32 != entry.crc32:
            raise self._refusal(f"'{entry.path}' has another checksum than its header says")

    def _refusal(self, reason: str) -> BundleError:
        return BundleError(
            f"'{self._path.name}' is not a packed bundle: {reason}",
            where=str(self._path),
            do="if another tool made this zip: unpack it, and use the folder or anyport pack",
        )
