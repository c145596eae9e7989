"""What must not be opened: folders that someone has changed."""

from __future__ import annotations

import json
import os
import shutil
import socket
from typing import TYPE_CHECKING, Any

import pytest

from anyport.bundle import open_bundle, unpack
from anyport.errors import BundleError
from tests.bundle.examples import PLACE, files_of, make_bundle, reseal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "m.port")


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught, open_bundle(folder):
        pass
    return caught.value.what


def use_everything(folder: Path) -> None:
    with open_bundle(folder) as bundle:
        for entry in bundle.manifest.files:
            bundle.file(entry.path)


def test_every_flipped_byte_is_refused_on_use_and_by_check(folder: Path) -> None:
    for relative, content in files_of(folder).items():
        path = folder / relative
        for place in range(0, len(content), max(1, len(content) // 40)):
            flipped = bytearray(content)
            flipped[place] ^= 1 << (place % 8)
            path.write_bytes(flipped)
            with pytest.raises(BundleError):
                use_everything(folder)
            with pytest.raises(BundleError), open_bundle(folder) as bundle:
                bundle.check()
        path.write_bytes(content)
    use_everything(folder)


def test_a_flipped_byte_does_not_reach_read_bytes(folder: Path) -> None:
    path = folder / "assets" / "vocab.txt"
    path.write_bytes(b"a\nc\n")
    with open_bundle(folder) as bundle, pytest.raises(BundleError, match="is not the file that was sealed"):
        bundle.read_bytes("assets/vocab.txt")


@pytest.mark.parametrize("name", ["extra", "assets/vocab.txt", "SEAL", "manifest.json"])
def test_check_sees_what_changes_after_opening(folder: Path, name: str) -> None:
    with open_bundle(folder) as bundle:
        bundle.check()
        (folder / name).write_bytes(b"xxxx")
        with pytest.raises(BundleError):
            bundle.check()


def test_another_whole_bundle_in_its_place_is_seen(folder: Path) -> None:
    with open_bundle(folder) as bundle:
        content = (folder / "manifest.json").read_bytes()
        reseal(folder, content.replace(b'"tiny"', b'"tidy"'))
        with pytest.raises(BundleError, match="^the bundle has been replaced since it was opened"):
            bundle.check()


def link_file_inside(folder: Path) -> None:
    (folder / "MODEL_CARD.md").unlink()
    (folder / "MODEL_CARD.md").symlink_to("assets/vocab.txt")


def link_file_outside(folder: Path) -> None:
    shutil.copy(folder / "MODEL_CARD.md", folder.parent / "card")
    (folder / "MODEL_CARD.md").unlink()
    (folder / "MODEL_CARD.md").symlink_to(folder.parent / "card")


def link_folder_inside(folder: Path) -> None:
    shutil.move(folder / "assets", folder / "kept")
    (folder / "assets").symlink_to("kept")


def link_folder_outside(folder: Path) -> None:
    shutil.move(folder / "assets", folder.parent / "assets")
    (folder / "assets").symlink_to(folder.parent / "assets")


def link_manifest(folder: Path) -> None:
    shutil.move(folder / "manifest.json", folder.parent / "manifest.json")
    (folder / "manifest.json").symlink_to(folder.parent / "manifest.json")


def fifo_for_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


def fifo_for_file(folder: Path) -> None:
    (folder / "MODEL_CARD.md").unlink()
    os.mkfifo(folder / "MODEL_CARD.md")


def socket_for_file(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket"))


def folder_for_file(folder: Path) -> None:
    (folder / "MODEL_CARD.md").unlink()
    (folder / "MODEL_CARD.md").mkdir()


def large_manifest(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as opened:
        opened.truncate(1 << 40)  # a hole: it takes no room on the disk, and must take none in memory


def large_seal(folder: Path) -> None:
    with (folder / "SEAL").open("r+b") as opened:
        opened.truncate(1 << 40)


CHANGES: list[tuple[Callable[[Path], Any], str]] = [
    (lambda f: (f / "extra").write_bytes(b""), "the bundle holds 'extra', which its manifest does not list"),
    (
        lambda f: (f / ".DS_Store").write_bytes(b""),
        "the bundle holds '.DS_Store', which its manifest does not list",
    ),
    (
        lambda f: (f / PLACE / "evil.so").write_bytes(b""),
        f"the bundle holds '{PLACE}/evil.so', which its manifest",
    ),
    (
        lambda f: (f / "a\x1b[2Jb").write_bytes(b""),
        "the bundle holds 'a\\x1b[2Jb', which its manifest does not list",
    ),
    (lambda f: (f / "empty").mkdir(), "the folder 'empty' is empty"),
    (lambda f: (f / "assets" / "a" / "b").mkdir(parents=True), "the folder 'assets/a/b' is empty"),
    (lambda f: (f / "MODEL_CARD.md").unlink(), "the bundle lacks 'MODEL_CARD.md'"),
    (lambda f: shutil.rmtree(f / "proof"), "the bundle lacks 'proof/arrays.safetensors'"),
    (lambda f: (f / "MODEL_CARD.md").write_bytes(b""), "'MODEL_CARD.md' has 0 bytes, 28 are sealed"),
    (lambda f: (f / "MODEL_CARD.md").rename(f / "model_card.md"), "the bundle holds 'model_card.md', which"),
    (lambda f: (f / "SEAL").unlink(), "'m.port' is no bundle: it has no SEAL"),
    (lambda f: (f / "manifest.json").unlink(), "'m.port' is no bundle: it has no manifest.json"),
    (lambda f: (f / "SEAL").write_bytes(b""), "manifest.json is not the one that was sealed"),
    (link_file_inside, "'MODEL_CARD.md' is a link; a bundle holds only files and folders"),
    (link_file_outside, "'MODEL_CARD.md' is a link; a bundle holds only files and folders"),
    (link_folder_inside, "'assets' is a link; a bundle holds only files and folders"),
    (link_folder_outside, "'assets' is a link; a bundle holds only files and folders"),
    (link_manifest, "'manifest.json' is a link"),
    (fifo_for_manifest, "'manifest.json' is no regular file"),
    (fifo_for_file, "'MODEL_CARD.md' is a FIFO; a bundle holds only files and folders"),
    (socket_for_file, "'socket' is a socket; a bundle holds only files and folders"),
    (folder_for_file, "the folder 'MODEL_CARD.md' is empty"),
    (large_manifest, "'manifest.json' has 1099511627776 bytes, at most 16777216 are read"),
    (large_seal, "'SEAL' has 1099511627776 bytes, at most 100 are read"),
]


@pytest.mark.parametrize(("change", "text"), CHANGES, ids=[text[:40] for _, text in CHANGES])
def test_a_changed_folder_is_not_opened(folder: Path, change: Callable[[Path], Any], text: str) -> None:
    change(folder)
    assert refusal(folder).startswith(text)


def test_a_link_put_in_after_opening_is_not_followed(folder: Path) -> None:
    with open_bundle(folder) as bundle:
        link_file_outside(folder)
        with pytest.raises(BundleError, match="^'MODEL_CARD.md' is a link"):
            bundle.file("MODEL_CARD.md")
        with pytest.raises(BundleError, match="^'MODEL_CARD.md' is a link"):
            bundle.read_bytes("MODEL_CARD.md")


# a forger re-seals: only the manifest's own rules are left
FORGED = [
    ("../x", "the path '../x' is refused: it has '..' as one of its names"),
    ("/etc/passwd", "the path '/etc/passwd' is refused: it is absolute"),
    ("a\\..\\x", "the path 'a\\\\..\\\\x' is refused: the name"),
    ("C:\\x", "the path 'C:\\\\x' is refused: the name"),
    ("a\0", "the path 'a\\x00' is refused: the name"),
    ("", "the path '' is refused: it is empty"),
    (".", "the path '.' is refused: it has '.' as one of its names"),
]


@pytest.mark.parametrize(("path", "text"), FORGED)
def test_no_path_of_a_manifest_leaves_the_folder(folder: Path, path: str, text: str) -> None:
    tree = json.loads((folder / "manifest.json").read_bytes())
    tree["files"][0]["path"] = path
    reseal(folder, json.dumps(tree).encode())
    assert refusal(folder).startswith(text)


def test_graphs_stay_in_their_folder(folder: Path) -> None:
    tree = json.loads((folder / "manifest.json").read_bytes())
    tree["variants"]["fp32"]["graphs"]["network"]["weights"] = "../../../secret"
    reseal(folder, json.dumps(tree).encode())
    assert refusal(folder) == "manifest.json: '../../../secret' is not in the folder of its graph"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (b'"format": 1,', b'"format": 1, "format": 1,', "manifest.json has the key 'format' twice"),
        (b'"opset": 20,', b'"opset": 20, "opset": 21,', "manifest.json has the key 'opset' twice"),
        (b'"format": 1,', b'"format": 2,', "the bundle has format 2, this anyport reads format 1"),
        (
            b'"proven"',
            b'"prooven"',
            "manifest.json has an unknown key 'prooven' in 'variants.fp32' (did you mean 'proven'?)",
        ),
    ],
)
def test_a_resealed_manifest_is_read_strictly(folder: Path, old: bytes, new: bytes, text: str) -> None:
    content = (folder / "manifest.json").read_bytes()
    assert old in content
    reseal(folder, content.replace(old, new))
    assert refusal(folder) == text


def test_a_folder_is_not_unpacked(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="^'m.port' is no regular file"):
        unpack(folder, tmp_path / "out.port")
