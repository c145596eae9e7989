from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyport.bundle import open_bundle, pack, unpack
from anyport.errors import BundleError, UsageError
from tests.bundle.examples import PLACE, files_of, make_bundle
from tests.runtime.externalgraphs import external_bundle

if TYPE_CHECKING:
    from pathlib import Path


def test_pack_unpack_pack_is_the_identity(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    first = pack(folder, tmp_path / "a.zip")
    again = unpack(first, tmp_path / "b.port")
    second = pack(again, tmp_path / "b.zip")
    third = pack(second, tmp_path / "c.zip")
    assert files_of(again) == files_of(folder)
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.port", "b.zip", "c.zip", "m.port"]


def test_times_and_rights_of_files_do_not_count(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    first = pack(folder, tmp_path / "a.zip").read_bytes()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.touch()
    assert pack(folder, tmp_path / "b.zip").read_bytes() == first


def test_an_existing_output_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    packed = pack(folder, tmp_path / "m.zip")
    with pytest.raises(UsageError, match="^'m.zip' exists already"):
        pack(folder, packed)
    with pytest.raises(UsageError, match="^'m.port' exists already"):
        unpack(packed, folder)
    content = packed.read_bytes()
    packed.write_text("old")
    assert pack(folder, packed, force=True).read_bytes() == content
    (folder / "extra").write_text("old")
    assert "extra" not in files_of(unpack(packed, folder, force=True))


def test_a_damaged_bundle_is_not_packed(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    path = folder / PLACE / "model.onnx"
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(BundleError, match=f"^'{PLACE}/model.onnx' is not the file that was sealed"):
        pack(folder, tmp_path / "m.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["m.port"]


def test_a_damaged_zip_is_not_unpacked(tmp_path: Path) -> None:
    packed = pack(make_bundle(tmp_path / "m.port"), tmp_path / "m.zip")
    packed.write_bytes(packed.read_bytes()[:-1])
    with pytest.raises(BundleError, match="^'m.zip' is not a packed bundle: it has "):
        unpack(packed, tmp_path / "out.port")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.port", "m.zip"]


def test_what_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    with pytest.raises(BundleError, match="^'x' is not a packed bundle: 'manifest.json' is missing"):
        unpack(tmp_path / "x", tmp_path / "out.port")
    with pytest.raises(BundleError, match="^cannot read 'absent': No such file or directory"):
        unpack(tmp_path / "absent", tmp_path / "out.port")
    with open_bundle(make_bundle(tmp_path / "m.port")) as bundle:
        bundle.check()


def test_a_bundle_that_refers_to_a_checkpoint_is_not_packed(tmp_path: Path) -> None:
    bundle = external_bundle(tmp_path)
    with pytest.raises(UsageError) as raised:
        pack(bundle, tmp_path / "m.zip")
    assert raised.value.what == "the bundle refers to a checkpoint that is not in it: 1 files, 448 bytes"
    assert str(raised.value.do).startswith("build it with --weights copy, and pack that")
    assert not (tmp_path / "m.zip").exists()
