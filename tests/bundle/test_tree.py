from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from anyport.bundle import tree
from anyport.bundle.tree import walk_tree
from anyport.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path


def test_it_lists_files_with_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(b"12")
    (tmp_path / "y").write_bytes(b"")
    assert dict(walk_tree(tmp_path)) == {"a/b/x": 2, "y": 0}


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(BundleError, match="(?m)^the folder 'a/b' is empty$"):
        list(walk_tree(tmp_path))


@pytest.mark.parametrize("target", ["file", "folder", "/etc", "absent", "../outside"])
def test_links_are_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_bytes(b"")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(BundleError, match="(?m)^'link' is a link; a bundle holds only files and folders$"):
        list(walk_tree(tmp_path))


def test_fifos_and_sockets_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BundleError, match="(?m)^'fifo' is a FIFO; a bundle holds only files and folders$"):
        list(walk_tree(tmp_path))
    (tmp_path / "fifo").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))  # a socket's path may have 107 characters
        with pytest.raises(
            BundleError, match="(?m)^'socket' is a socket; a bundle holds only files and folders$"
        ):
            list(walk_tree(tmp_path))


def test_the_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_FILES", 2)
    for name in "abc":
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(BundleError, match="(?m)^there are more than 2 files in one folder$"):
        list(walk_tree(tmp_path))
