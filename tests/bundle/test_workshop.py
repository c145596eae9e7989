from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyport.bundle.workshop import leftovers, n_done, open_workshop, sweep

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


def dead_with(tmp_path: Path, digit: str, *done: str) -> Path:
    """Make the folder of a dead build that has done things."""
    folder = tmp_path / f".m.port.building-{digit * 16}"
    for name in done:
        (folder / "done" / name).mkdir(parents=True)
    (folder / "new").mkdir(parents=True)
    return folder


def test_what_has_done_most_is_taken_over_and_others_go(tmp_path: Path) -> None:
    dead_with(tmp_path, "a", "one")
    best = dead_with(tmp_path, "b", "one", "two", "half.three")
    dead_with(tmp_path, "c", "half.one", "half.two", "half.three")
    dead_with(tmp_path, "d")
    assert n_done(best) == 2
    workshop = open_workshop(tmp_path / "m.port", resume=True)
    assert (workshop.folder, workshop.is_inherited) == (best, True)
    assert list(tmp_path.iterdir()) == [best]
    again = open_workshop(tmp_path / "m.port", resume=True)  # the first one lives
    assert (again.folder != best, again.is_inherited) == (True, False)
    again.close()
    workshop.leave()
    assert sorted(path.name for path in (best / "done").iterdir()) == ["half.three", "one", "two"]
    open_workshop(tmp_path / "m.port").close()
    assert list(tmp_path.iterdir()) == []


def test_nothing_done_is_nothing_to_take_over(tmp_path: Path) -> None:
    dead_with(tmp_path, "c", "half.one")
    workshop = open_workshop(tmp_path / "m.port", resume=True)
    assert not workshop.is_inherited
    assert list(tmp_path.iterdir()) == [workshop.folder]
    workshop.close()


@pytest.mark.parametrize("was_replaced", [False, True])
def test_taking_over_ends_what_a_replacement_began(was_replaced: bool, tmp_path: Path) -> None:
    dead = dead_with(tmp_path, "a", "one")
    (dead / "old").mkdir()
    (dead / "old" / "SEAL").write_text("old")
    if was_replaced:
        (tmp_path / "m.port").mkdir()
        (tmp_path / "m.port" / "SEAL").write_text("new")
    workshop = open_workshop(tmp_path / "m.port", resume=True)
    assert (tmp_path / "m.port" / "SEAL").read_text() == ("new" if was_replaced else "old")
    assert not workshop.old.exists()
    workshop.leave()
    assert (dead / "done" / "one").is_dir()
