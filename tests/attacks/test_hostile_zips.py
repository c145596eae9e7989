"""What must not be unpacked: archives that are not, byte by byte, a packed bundle."""

from __future__ import annotations

import stat
import tempfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from anyport.bundle import open_bundle, pack, unpack
from anyport.errors import BundleError
from tests.bundle.examples import files_of, make_bundle, make_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Change = Callable[[zipfile.ZipFile, dict[str, bytes]], None]

PREFIX = "'m.zip' is not a packed bundle: "


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where zips are unpacked, so that a test can see what is left."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return pack(make_bundle(tmp_path / "m.port"), tmp_path / "m.zip")


def refusal(packed: Path, temporary: Path) -> str:
    with pytest.raises(BundleError) as caught, open_bundle(packed):
        pass
    assert list(temporary.iterdir()) == []
    with pytest.raises(BundleError) as again:
        unpack(packed, packed.parent / "out.port")
    assert not (packed.parent / "out.port").exists()
    assert again.value.what == caught.value.what
    return caught.value.what


def test_every_flipped_byte_is_refused(packed: Path, temporary: Path) -> None:
    content = packed.read_bytes()
    last = content.index(b"PK\x01\x02")  # the headers byte by byte, the files here and there
    with zipfile.ZipFile(packed) as archive:
        headers = [entry.header_offset for entry in archive.infolist()]
    places = (
        {at + n for at in headers for n in range(30)}
        | {*range(4, last, 41)}
        | {*range(last, len(content), 5)}
    )
    for place in sorted(
        place for place in places if place >= 4
    ):  # without its first bytes it is no zip at all
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        packed.write_bytes(flipped)
        with pytest.raises(BundleError), open_bundle(packed):
            pass
    assert list(temporary.iterdir()) == []


def test_every_truncation_and_every_extension_is_refused(packed: Path, temporary: Path) -> None:
    content = packed.read_bytes()
    for changed in (*(content[:n] for n in range(4, len(content), 37)), content + b"\0", content + content):
        packed.write_bytes(changed)
        assert refusal(packed, temporary).startswith(PREFIX)
    packed.write_bytes(b"#!/bin/sh\n" + content)
    with pytest.raises(BundleError, match="^'m.zip' is no bundle: neither a folder nor a zip"):
        open_bundle(packed)


def test_a_file_larger_than_the_manifest_says_is_refused(packed: Path, temporary: Path) -> None:
    # the sizes of the archive are known before anything is written
    content = packed.read_bytes()
    at = (
        content.index(b"MODEL_CARD.mdd---")
        if b"MODEL_CARD.mdd---" in content
        else content.index(b"MODEL_CARD.md---")
    )
    packed.write_bytes(content[: at + 13] + bytes(10**6) + content[at + 13 :])
    assert refusal(packed, temporary).startswith(
        f"{PREFIX}it has {len(content) + 10**6} bytes, with its manifest"
    )


def test_a_declared_size_that_is_too_large_is_refused_before_it_is_read(
    packed: Path, temporary: Path
) -> None:
    content = bytearray(packed.read_bytes())
    content[18:26] = (1 << 31).to_bytes(4, "little") * 2
    packed.write_bytes(content)
    assert (
        refusal(packed, temporary)
        == f"{PREFIX}'manifest.json' has {1 << 31} bytes, at most 16777216 are read"
    )


def other_tool(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        archive.writestr(name, content)


def compressed(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        archive.writestr(name, content, zipfile.ZIP_DEFLATED)


def bomb(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    archive.writestr("manifest.json", bytes(10**8), zipfile.ZIP_DEFLATED)
    archive.writestr("SEAL", files["SEAL"])


def folder_in_front(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        archive.writestr(f"m.port/{name}", content)


def twice(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    archive.writestr(fixed("manifest.json"), files["manifest.json"])
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(fixed("manifest.json"), b"{}")


def climbing(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    for name in ("manifest.json", "SEAL"):
        archive.writestr(fixed(name), files[name])
    archive.writestr(fixed("../../evil"), bytes(1))


def absolute(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    archive.writestr(fixed("/etc/evil"), files["manifest.json"])


def linked(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        entry = fixed(name)
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, content)


def rearranged(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    for name in ("SEAL", "manifest.json"):
        archive.writestr(fixed(name), files[name])


def fixed(name: str) -> zipfile.ZipInfo:
    """Return an entry that is written as `pack` writes it."""
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = 0o100644 << 16
    return entry


def commented(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        archive.writestr(fixed(name), content)
    archive.comment = b"hello"


def one_more(archive: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    for name, content in {**files, "zz": b""}.items():
        archive.writestr(fixed(name), content)


CHANGES: list[tuple[Change, str]] = [
    (other_tool, "the header of 'manifest.json' is not the one that is written"),
    (compressed, "'manifest.json' is compressed"),
    (bomb, "'manifest.json' is compressed"),
    (folder_in_front, "it holds 'm.port/manifest.json' where 'manifest.json' must be"),
    (twice, "it holds 'manifest.json' where 'SEAL' must be"),
    (climbing, "it has "),
    (absolute, "it holds '/etc/evil' where 'manifest.json' must be"),
    (linked, "its central directory does not belong to its files"),
    (rearranged, "it holds 'SEAL' where 'manifest.json' must be"),
    (commented, "it has "),
    (one_more, "it has "),
]


@pytest.mark.parametrize(("change", "text"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_an_archive_of_another_make_is_refused(
    tmp_path: Path, temporary: Path, change: Change, text: str
) -> None:
    files = files_of(make_bundle(tmp_path / "m.port"))
    order = [
        "manifest.json",
        "SEAL",
        *(name for name in sorted(files) if name not in {"manifest.json", "SEAL"}),
    ]
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        change(archive, {name: files[name] for name in order})
    assert refusal(tmp_path / "m.zip", temporary).startswith(PREFIX + text)
    assert not (tmp_path.parent / "evil").exists()


def test_the_standard_library_can_write_the_very_same_archive(tmp_path: Path, packed: Path) -> None:
    files = files_of(tmp_path / "m.port")
    order = [
        "manifest.json",
        "SEAL",
        *(name for name in sorted(files) if name not in {"manifest.json", "SEAL"}),
    ]
    with zipfile.ZipFile(tmp_path / "same.zip", "w") as archive:
        for name in order:
            archive.writestr(fixed(name), files[name])
    assert (tmp_path / "same.zip").read_bytes() == packed.read_bytes()


def test_an_encrypted_entry_is_refused(packed: Path, temporary: Path) -> None:
    content = bytearray(packed.read_bytes())
    content[6] |= 1
    packed.write_bytes(content)
    assert refusal(packed, temporary) == f"{PREFIX}'manifest.json' is encrypted"


def test_a_file_that_was_exchanged_with_its_checksums_is_refused(tmp_path: Path, temporary: Path) -> None:
    files = files_of(make_bundle(tmp_path / "m.port"))
    files["assets/vocab.txt"] = b"a\nc\n"
    order = [
        "manifest.json",
        "SEAL",
        *(name for name in sorted(files) if name not in {"manifest.json", "SEAL"}),
    ]
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name in order:
            archive.writestr(fixed(name), files[name])
    assert refusal(tmp_path / "m.zip", temporary).startswith(
        "'assets/vocab.txt' is not the file that was sealed: sha256"
    )


def test_the_example_has_more_than_one_file_of_every_kind() -> None:
    assert make_manifest().variants["fp32"].graphs["network"].weights


def test_a_checksum_that_is_wrong_in_both_places_is_refused(packed: Path, temporary: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        crc32 = archive.getinfo("assets/vocab.txt").CRC.to_bytes(4, "little")
    content = packed.read_bytes()
    assert content.count(crc32) == 2
    packed.write_bytes(content.replace(crc32, bytes(4)))
    assert (
        refusal(packed, temporary) == f"{PREFIX}'assets/vocab.txt' has another checksum than its header says"
    )
