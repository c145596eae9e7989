from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from anyport.bundle import Staging, open_bundle, seal_bundle, staged_file, write_file_atomically
from anyport.errors import BundleError, UsageError
from tests.bundle.examples import files_of, fill_folder, make_bundle, make_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def build(output: Path, *, force: bool = False) -> None:
    with Staging.open(output, force=force) as staging:
        fill_folder(staging.folder)
        seal_bundle(staging.folder, make_manifest())
        staging.commit()


def build_and_die(output: Path, error: type[BaseException], *, force: bool = False) -> None:
    with Staging.open(output, force=force) as staging:
        fill_folder(staging.folder)
        raise error


def test_a_committed_folder_has_its_name_and_nothing_else_is_left(tmp_path: Path) -> None:
    build(tmp_path / "m.port")
    assert [path.name for path in tmp_path.iterdir()] == ["m.port"]
    with open_bundle(tmp_path / "m.port") as bundle:
        bundle.check()


def test_without_commit_nothing_is_left(tmp_path: Path) -> None:
    with Staging.open(tmp_path / "m.port") as staging:
        fill_folder(staging.folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_after_an_error_nothing_is_left(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        build_and_die(tmp_path / "m.port", error)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_whoever_wrote(tmp_path: Path) -> None:
    with (
        pytest.raises(BundleError, match="(?m)^cannot write 'm.port': the disk is full$"),
        Staging.open(tmp_path / "m.port"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), Staging.open(tmp_path / "m.port"):
        raise FileNotFoundError(errno.ENOENT, "the user's own file")


def test_an_existing_output_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "m.port")
    before = files_of(tmp_path)
    with pytest.raises(UsageError, match="(?m)^'m.port' exists already$") as caught:
        build(tmp_path / "m.port")
    assert caught.value.do == "choose another name, or add --force to replace it"
    assert files_of(tmp_path) == before


def test_force_replaces_a_bundle(tmp_path: Path) -> None:
    make_bundle(tmp_path / "m.port")
    (tmp_path / "m.port" / "extra").write_text("of the old one")
    build(tmp_path / "m.port", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.port"]
    assert not (tmp_path / "m.port" / "extra").exists()


def test_force_keeps_the_old_bundle_when_the_build_fails(tmp_path: Path) -> None:
    make_bundle(tmp_path / "m.port")
    before = files_of(tmp_path)
    with pytest.raises(RuntimeError):
        build_and_die(tmp_path / "m.port", RuntimeError, force=True)
    assert files_of(tmp_path) == before


def test_force_replaces_nothing_that_is_no_bundle(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "manifest.json").write_text("of a web page")
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(make_bundle(tmp_path / "m.port"))
    for name in ("home", "file", "link"):
        with pytest.raises(
            UsageError, match=f"(?m)^'{name}' is not a bundle, and --force replaces nothing else$"
        ):
            Staging.open(tmp_path / name, force=True)
    (tmp_path / "empty").mkdir()
    build(tmp_path / "empty", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "home", "link", "m.port"]


def test_an_output_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with Staging.open(tmp_path / "m.port") as staging:
        fill_folder(staging.folder)
        make_bundle(tmp_path / "m.port")
        with pytest.raises(UsageError, match="(?m)^'m.port' exists already$"):
            staging.commit()
    assert (tmp_path / "m.port" / "SEAL").is_file()


def test_two_builds_of_one_output_do_not_disturb_each_other(tmp_path: Path) -> None:
    with Staging.open(tmp_path / "m.port") as first, Staging.open(tmp_path / "m.port") as second:
        for staging in (first, second):
            fill_folder(staging.folder)
            seal_bundle(staging.folder, make_manifest())
        second.commit()
        with pytest.raises(UsageError, match="(?m)^'m.port' exists already$"):
            first.commit()
    with open_bundle(tmp_path / "m.port") as bundle:
        bundle.check()
    assert [path.name for path in tmp_path.iterdir()] == ["m.port"]


def test_the_folder_of_the_output_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="(?m)^the folder of 'm.port' does not exist$") as caught:
        Staging.open(tmp_path / "absent" / "m.port")
    assert caught.value.do == f"mkdir -p '{tmp_path / 'absent'}'"


def test_a_relative_output_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path as PathNow

    monkeypatch.chdir(tmp_path)
    with Staging.open(PathNow("m.port")) as staging:
        fill_folder(staging.folder)
        monkeypatch.chdir("/")
        staging.commit()
    assert (tmp_path / "m.port").is_dir()


def test_the_folder_may_be_read_by_others_like_any_new_folder(tmp_path: Path) -> None:
    build(tmp_path / "m.port")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "m.port").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    output = tmp_path / "x"
    assert write_file_atomically(output, b"12") == output
    with pytest.raises(UsageError, match="(?m)^'x' exists already$"):
        write_file_atomically(output, b"34")
    write_file_atomically(output, iter([b"5", b"6"]), force=True)
    assert files_of(tmp_path) == {"x": b"56"}


def test_a_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")

    def die() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_file_atomically(tmp_path / "x", die(), force=True)
    assert files_of(tmp_path) == {"x": b"old"}
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(UsageError, match="^'folder' is not a file"),
        staged_file(tmp_path / "folder", force=True),
    ):
        pass


def test_sealing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m.port")
    before = files_of(folder)
    sealed, digest = seal_bundle(folder, make_manifest())
    assert files_of(folder) == before
    assert before["SEAL"] == f"sha256:{digest}\n".encode()
    assert seal_bundle(folder, sealed) == (sealed, digest)
    assert [entry.path for entry in sealed.files] == sorted(set(before) - {"SEAL", "manifest.json"})


def test_what_reading_refuses_is_not_sealed(tmp_path: Path) -> None:
    folder = tmp_path / "m.port"
    folder.mkdir()
    fill_folder(folder)
    (folder / ".DS_Store").write_bytes(b"")
    with pytest.raises(BundleError, match="^the path '.DS_Store' is refused"):
        seal_bundle(folder, make_manifest())
    (folder / ".DS_Store").unlink()
    (folder / "empty").mkdir()
    with pytest.raises(BundleError, match="(?m)^the folder 'empty' is empty$"):
        seal_bundle(folder, make_manifest())
    (folder / "empty").rmdir()
    (folder / "link").symlink_to("SEAL")
    with pytest.raises(BundleError, match="^'link' is a link"):
        seal_bundle(folder, make_manifest())
    assert not (folder / "SEAL").exists()


def test_what_stays_is_left_to_the_next_that_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "m.port"
    with Staging.open(output, resume=True) as staging:
        assert (staging.is_inherited, staging.stays) == (False, False)
        (staging.done / "one").mkdir(parents=True)
        (staging.folder / "file").touch()
        staging.stays = True
    with Staging.open(output, resume=True) as staging:
        assert (staging.is_inherited, staging.stays) == (True, True)
        assert [path.name for path in staging.folder.iterdir()] == ["file"]
        assert not staging.is_committed
        (staging.folder / "file").unlink()
        fill_folder(staging.folder)
        seal_bundle(staging.folder, make_manifest())
        staging.commit()
        assert staging.is_committed
    assert [path.name for path in tmp_path.iterdir()] == ["m.port"]


def test_an_output_that_may_not_be_replaced_costs_nothing_that_is_done(tmp_path: Path) -> None:
    output = tmp_path / "m.port"
    with Staging.open(output, resume=True) as staging:
        (staging.done / "one").mkdir(parents=True)
        staging.stays = True
    output.mkdir()
    with pytest.raises(UsageError, match="'m.port' exists already"):
        Staging.open(output, resume=True)
    assert (staging.done / "one").is_dir()
    with pytest.raises(UsageError, match="'m.port' exists already"):
        Staging.open(output)
    assert not staging.done.exists()
