from __future__ import annotations

from typing import TYPE_CHECKING

from anyport.bundle.workshop import leftovers, open_workshop, sweep

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_hidden_beside_its_output_and_goes(tmp_path: Path) -> None:
    workshop = open_workshop(tmp_path / "m.port")
    workshop.new.mkdir()
    assert leftovers(tmp_path / "m.port") == [workshop.folder]
    assert workshop.folder.name.startswith(".m.port.building-")
    workshop.close()
    assert list(tmp_path.iterdir()) == []


def test_a_living_one_is_not_swept(tmp_path: Path) -> None:
    first = open_workshop(tmp_path / "m.port")
    second = open_workshop(tmp_path / "m.port")
    assert first.folder.is_dir()
    assert second.folder.is_dir()
    second.close()
    assert first.folder.is_dir()
    first.close()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_one_is_swept_by_builds_of_its_output_only(tmp_path: Path) -> None:
    dead = tmp_path / ".m.port.building-0123456789abcdef"
    for place in ("new", "new/sub"):
        (dead / place).mkdir(parents=True)
    (dead / "lock").write_bytes(b"")
    sweep(tmp_path / "other.port")
    sweep(tmp_path / "m")
    assert dead.is_dir()
    sweep(tmp_path / "m.port")
    assert not dead.exists()


def test_one_that_died_before_it_had_a_lock_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".m.port.building-0123456789abcdef").mkdir()
    sweep(tmp_path / "m.port")
    assert list(tmp_path.iterdir()) == []


def test_what_only_looks_similar_stays(tmp_path: Path) -> None:
    for name in (
        ".m.port.building-xyz",
        ".m.port.building-0123456789abcdef0",
        "m.port.building-0123456789abcdef",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / ".m.port.building-aaaaaaaaaaaaaaaa").write_text("a file")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".m.port.building-bbbbbbbbbbbbbbbb").symlink_to("elsewhere")
    before = sorted(tmp_path.iterdir())
    sweep(tmp_path / "m.port")
    assert sorted(tmp_path.iterdir()) == before


def test_the_old_output_comes_back_when_nothing_replaced_it(tmp_path: Path) -> None:
    dead = tmp_path / ".m.port.building-0123456789abcdef"
    (dead / "old").mkdir(parents=True)
    (dead / "old" / "SEAL").write_text("old")
    (dead / "new").mkdir()
    sweep(tmp_path / "m.port")
    assert (tmp_path / "m.port" / "SEAL").read_text() == "old"
    assert not dead.exists()


def test_the_old_output_goes_when_it_was_replaced(tmp_path: Path) -> None:
    dead = tmp_path / ".m.port.building-0123456789abcdef"
    (dead / "old").mkdir(parents=True)
    (tmp_path / "m.port").mkdir()
    (tmp_path / "m.port" / "SEAL").write_text("new")
    sweep(tmp_path / "m.port")
    assert (tmp_path / "m.port" / "SEAL").read_text() == "new"
    assert not dead.exists()
