from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

from anyport.bundle import open_bundle, pack, reading, seal_bundle
from anyport.bundle.disk import digest_file
from anyport.errors import BundleError, UsageError
from tests.bundle.examples import PLACE, files_of, make_bundle, make_manifest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "m.port")


def test_it_gives_what_was_written(folder: Path) -> None:
    content = files_of(folder)
    sealed, digest = seal_bundle(folder, make_manifest())
    with open_bundle(str(folder)) as bundle:
        assert bundle.path == folder
        assert bundle.manifest == sealed
        assert bundle.digest == digest
        assert bundle.size_bytes == sum(entry.size_bytes for entry in sealed.files)
        for entry in sealed.files:
            assert bundle.file(entry.path).read_bytes() == content[entry.path]
            assert bundle.read_bytes(entry.path) == content[entry.path]
        bundle.check()


def test_a_zip_gives_the_same(folder: Path, tmp_path: Path) -> None:
    with open_bundle(pack(folder, tmp_path / "m.zip")) as bundle:
        place = bundle.folder
        assert files_of(place) == files_of(folder)
        assert place.stat().st_mode & 0o777 == 0o700
        bundle.check()
    assert not place.exists()


def test_a_forgotten_zip_is_cleared_away(folder: Path, tmp_path: Path) -> None:
    bundle = open_bundle(pack(folder, tmp_path / "m.zip"))
    place = bundle.folder
    del bundle
    gc.collect()
    assert not place.exists()


def test_a_graph_comes_with_its_part(folder: Path) -> None:
    with open_bundle(folder) as bundle:
        graph = bundle.graph_file("network")
        assert graph == bundle.graph_file("network", "fp32")
        assert graph.path == folder / PLACE / "model.onnx"
        assert graph.entry == bundle.manifest.variants["fp32"].graphs["network"]
        assert (graph.part, graph.part_name, graph.variant_name) == (
            bundle.manifest.parts["network"],
            "network",
            "fp32",
        )
        with pytest.raises(
            UsageError, match=r"^the bundle has no part 'netwrk' \(did you mean 'network'\?\)"
        ):
            bundle.graph_file("netwrk")
        with pytest.raises(UsageError, match=r"^the bundle has no variant 'fp16' \(known: 'fp32'\)"):
            bundle.graph_file("network", "fp16")


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "modules.json"])
def test_a_graph_is_checked_with_all_that_it_can_reach(folder: Path, name: str) -> None:
    path = folder / PLACE / name
    path.write_bytes(bytes(len(path.read_bytes())))
    with open_bundle(folder) as bundle, pytest.raises(BundleError, match="is not the file that was sealed"):
        bundle.graph_file("network")


def test_digests_are_computed_once_and_again_after_a_touch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def spy(path: Path, size_bytes: int) -> str:
        seen.append(path.name)
        return digest_file(path, size_bytes)

    monkeypatch.setattr(reading, "digest_file", spy)
    with open_bundle(folder) as bundle:
        assert seen == []
        bundle.file("MODEL_CARD.md")
        bundle.file("MODEL_CARD.md")
        assert seen == ["MODEL_CARD.md"]
        path = folder / "MODEL_CARD.md"
        path.write_bytes(path.read_bytes().replace(b"Apache", b"Apachi"))
        with pytest.raises(BundleError, match="^'MODEL_CARD.md' is not the file that was sealed: sha256 "):
            bundle.file("MODEL_CARD.md")


def test_a_file_of_the_bundle_is_found_by_its_exact_name(folder: Path) -> None:
    with open_bundle(folder) as bundle:
        for name in (
            "../m.port/SEAL",
            "/etc/passwd",
            "assets",
            "assets/../MODEL_CARD.md",
            "",
            "SEAL",
            "manifest.json",
        ):
            with pytest.raises(BundleError, match="^the bundle has no file "):
                bundle.file(name)
        with pytest.raises(BundleError, match=r"\(did you mean 'assets/vocab.txt'\?\)"):
            bundle.read_bytes("assets/vocab.tx")


def test_large_files_are_not_read_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_READ_BYTES", 3)
    with (
        open_bundle(folder) as bundle,
        pytest.raises(BundleError, match="^'assets/vocab.txt' has 4 bytes, too much"),
    ):
        bundle.read_bytes("assets/vocab.txt")


def test_a_closed_bundle_gives_nothing(folder: Path) -> None:
    bundle = open_bundle(folder)
    bundle.close()
    bundle.close()
    for call in (lambda: bundle.file("MODEL_CARD.md"), bundle.check, lambda: bundle.graph_file("network")):
        with pytest.raises(BundleError, match="^the bundle is closed"):
            call()
    assert (folder / "SEAL").is_file()


def test_the_bundle_itself_may_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    (tmp_path / "current.zip").symlink_to(pack(folder, tmp_path / "m.zip"))
    for name in ("current", "current.zip"):
        with open_bundle(tmp_path / name) as bundle:
            bundle.check()


def test_hard_links_are_files(folder: Path, tmp_path: Path) -> None:
    os.link(folder / "MODEL_CARD.md", tmp_path / "elsewhere")  # installers link from their caches
    with open_bundle(folder) as bundle:
        bundle.check()


def test_what_is_no_bundle(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("absent")
    (folder / "SEAL").unlink()
    for name, text in {
        "text": "'text' is no bundle: neither a folder nor a zip",
        "empty": "'empty' is no bundle: it has no manifest.json",
        "m.port": "'m.port' is no bundle: it has no SEAL",
        "fifo": "'fifo' is no regular file",
        "absent": "there is no bundle 'absent'",
        "dangling": "there is no bundle 'dangling'",
    }.items():
        with pytest.raises(BundleError) as caught:
            open_bundle(tmp_path / name)
        assert caught.value.what == text


def test_a_bundle_lost_by_a_dying_build_is_found(folder: Path, tmp_path: Path) -> None:
    dead = tmp_path / ".m.port.building-0123456789abcdef"
    dead.mkdir()
    folder.rename(dead / "old")
    with pytest.raises(BundleError, match="there is no bundle 'm.port'") as caught:
        open_bundle(folder)
    assert caught.value.do == f"a build died while replacing it; the bundle before is in '{dead / 'old'}'"
