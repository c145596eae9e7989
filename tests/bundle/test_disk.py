from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from anyport.bundle.disk import (
    BLOCK_BYTES,
    digest_file,
    disk_error,
    disk_errors,
    open_regular,
    read_blocks,
    read_capped,
    size_text,
    sync_file,
    sync_folder,
)
from anyport.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_digest_is_sha256(tmp_path: Path) -> None:
    for size_bytes in (0, 1, BLOCK_BYTES, BLOCK_BYTES + 1):
        content = bytes(size_bytes)
        (tmp_path / "x").write_bytes(content)
        assert digest_file(tmp_path / "x", size_bytes) == hashlib.sha256(content).hexdigest()


def test_no_block_is_large(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(3 * BLOCK_BYTES + 5))
    sizes = [len(block) for block in read_blocks(tmp_path / "x", 3 * BLOCK_BYTES + 5)]
    assert sizes == [BLOCK_BYTES] * 3 + [5]


@pytest.mark.parametrize("size_bytes", [0, 9, 11])
def test_another_size_is_refused(tmp_path: Path, size_bytes: int) -> None:
    (tmp_path / "x").write_bytes(bytes(10))
    with pytest.raises(BundleError, match=f"(?m)^'x' has 10 bytes, {size_bytes} are sealed$"):
        digest_file(tmp_path / "x", size_bytes)


def test_a_small_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234")
    assert read_capped(tmp_path / "x", 4) == b"1234"
    with pytest.raises(BundleError, match="(?m)^'x' has 4 bytes, at most 3 are read$"):
        read_capped(tmp_path / "x", 3)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    for name, reason in {
        "link": "(?m)^'link' is a link$",
        "fifo": "(?m)^'fifo' is no regular file$",
        "absent": "(?m)^cannot read 'absent': No such file or directory$",
    }.items():
        with pytest.raises(BundleError, match=reason), open_regular(tmp_path / name):
            pass


def test_a_full_disk_is_told_with_amount_place_and_remedy(tmp_path: Path) -> None:
    error = disk_error(OSError(errno.ENOSPC, "No space left on device"), "write", tmp_path / "w", 2_500_000)
    assert error.what == "cannot write 'w' (2.5 MB): the disk is full"
    assert error.where is not None
    assert error.where.startswith(f"{tmp_path / 'w'}, ")
    assert error.where.endswith(" free")
    assert error.do == "free some space, or write to another disk"
    limit = disk_error(OSError(errno.EFBIG, "File too large"), "write", tmp_path / "absent" / "w")
    assert limit.what == "cannot write 'w': the limit on the size of a file is reached"
    assert limit.where == str(tmp_path / "absent" / "w")


def test_other_disk_errors_keep_their_words(tmp_path: Path) -> None:
    with (
        pytest.raises(BundleError, match="(?m)^cannot read 'x': Permission denied$") as caught,
        disk_errors("read", tmp_path / "x"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert isinstance(caught.value.__cause__, PermissionError)


def test_sizes_are_written_for_people() -> None:
    assert [size_text(n) for n in (0, 999, 1000, 1_500_000, 2e9, 3e12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "1.5 MB",
        "2.0 GB",
        "3.0 TB",
    ]


def test_files_and_folders_are_synced(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    sync_file(tmp_path / "x")
    sync_folder(tmp_path)
    with pytest.raises(BundleError, match="(?m)^cannot write 'absent': No such file or directory$"):
        sync_file(tmp_path / "absent")
