"""A build that does not fit is refused at once: nothing is loaded, nothing is written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from anyport.build import BuildPlan, BuildSettings, build, describe, estimate_build, steps
from anyport.build import estimate as estimates
from anyport.build import fitting as room
from anyport.build.costs import Speed
from anyport.build.fitting import check_fits
from anyport.bundle.disk import size_text
from anyport.errors import SourceError, UsageError
from tests.build.building import QUICK, plan_for, silent
from tests.recipe.blip_folders import write_folder as write_blip
from tests.recipe.qwen_folders import write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.build.costs import BuildCost

HOW = replace(QUICK, max_cases=3, max_case_bytes=64 << 10)


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("fit") / "Tiny-Edit")


@pytest.fixture(autouse=True)
def _beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded, and the speed of the machine is not measured."""

    def never(*_: object) -> Any:
        raise AssertionError

    monkeypatch.setattr(steps, "find_model", never)
    monkeypatch.setattr(estimates, "measure_speed", never)


def plan(folder: Path, output: Path, how: BuildSettings = HOW, **made: Any) -> BuildPlan:
    description = describe({"model": {"source": folder.name}, "build": made}, "test")
    return BuildPlan(description, folder.parent, output / "m.port", how)


def whole(wanted: BuildPlan) -> BuildCost:
    """Return the estimate with its times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "measure_speed", lambda: Speed(1e11, 5e10))
        return estimate_build(wanted)


def refused(wanted: BuildPlan) -> UsageError:
    with pytest.raises(UsageError) as caught:
        build(wanted, silent)
    assert not wanted.output.parent.exists() or not list(wanted.output.parent.iterdir())
    return caught.value


@pytest.mark.parametrize("made", [{}, {"weights": "reference"}, {"weights": "copy"}])
def test_it_says_what_a_plan_says(saved: Path, tmp_path: Path, made: Any) -> None:
    wanted = plan(saved, tmp_path, **made)
    rough, ways = estimates.estimate_roughly(wanted)
    cost = whole(wanted)
    assert rough.disk_bytes == pytest.approx(cost.disk_bytes, rel=0.1)
    assert rough.memory_bytes == pytest.approx(cost.memory_bytes, rel=0.01)
    others = {"reference", "copy"} - {made.get("weights")}
    assert set(ways()) == others
    assert set(cost.ways) == (others if not made else set())


def test_a_disk_that_is_too_small(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, copy = (whole(plan(saved, tmp_path, weights=way)) for way in ("reference", "copy"))
    between = (reference.disk_bytes + copy.disk_bytes) // 2
    monkeypatch.setattr(estimates, "_free_bytes", lambda _: between)
    found = refused(plan(saved, tmp_path, weights="copy"))
    assert found.what.startswith("the bundle needs ")
    assert found.what.endswith(f" MB of disk, and {between / 1e6:.1f} MB are free")
    assert found.where == "m.port"
    assert found.do is not None
    assert found.do.startswith("--weights reference: memory ")
    assert found.do.endswith("; -o on another disk")
    check_fits(plan(saved, tmp_path, weights="reference"))
    monkeypatch.setattr(estimates, "_free_bytes", lambda _: 1000)
    assert refused(plan(saved, tmp_path)).do == "-o on another disk"


def test_a_memory_that_is_clearly_too_small(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = whole(plan(saved, tmp_path)).memory_bytes

    def memory(share: float) -> None:
        monkeypatch.setattr(room, "free_memory_bytes", lambda *, with_swap: with_swap * int(share * needed))

    memory(0.72)
    check_fits(plan(saved, tmp_path))
    memory(0.68)
    found = refused(plan(saved, tmp_path))
    assert found.what == (
        f"the build needs about {size_text(needed)} of memory, and {size_text(int(0.68 * needed))} are free, "
        "swap included"
    )
    assert found.where is not None
    assert found.where.startswith("part ")
    assert found.do is not None
    assert found.do.split(": memory ")[0] == "--weights reference"
    assert "; --weights copy: memory " in found.do
    assert found.do.endswith("; a machine with more memory")
    monkeypatch.setattr(room, "free_memory_bytes", lambda *, with_swap: None)  # noqa: ARG005  (called by name)
    check_fits(plan(saved, tmp_path))


def test_what_an_interrupted_build_has_begun_is_not_wanted_twice(saved: Path, tmp_path: Path) -> None:
    wanted = plan(saved, tmp_path)
    before = estimates._free_bytes(wanted.output)
    begun = tmp_path / f".m.port.building-{'0' * 16}" / "new"
    begun.mkdir(parents=True)
    (begun / "weights.safetensors").write_bytes(b"x" * (1 << 20))
    (begun / "link").symlink_to(saved)
    # other programs write meanwhile; nobody writes a link's target here
    assert estimates._free_bytes(wanted.output) - before == pytest.approx(0, abs=64 << 20)
    found = [entry for entry in begun.rglob("*") if estimates._size(entry)]
    assert [entry.name for entry in found] == ["weights.safetensors"]
    assert estimates._size(begun / "gone") == 0


def test_a_function_is_not_called_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "estimate_roughly", lambda _: pytest.fail("it would run twice"))
    check_fits(plan_for("dense", tmp_path / "m.port"))


def test_what_cannot_be_foreseen_is_left_to_the_build(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unforeseen(_: object) -> Any:
        raise SourceError("part 'x' cannot be outlined without its weights")

    monkeypatch.setattr(room, "estimate_roughly", unforeseen)
    check_fits(plan(saved, tmp_path))


def test_other_models_have_no_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_blip("BlipForConditionalGeneration", tmp_path / "tiny", n_layers=1)
    monkeypatch.setattr(room, "free_memory_bytes", lambda *, with_swap: 1000)  # noqa: ARG005  (called by name)
    found = refused(plan(folder, tmp_path / "out"))
    assert found.do is not None
    assert "--weights" not in found.do
    assert found.do.endswith("a machine with more memory")
