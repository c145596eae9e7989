"""A tiny Qwen-Image-Edit folder, and the bundle that is built of it: once for all tests of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anyport.build import BuildPlan, build, describe
from tests.build.building import QUICK
from tests.recipe.qwen_folders import write_folder

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from anyport.build import BuildResult, BuildSettings

HOW = replace(QUICK, max_cases=8, max_case_bytes=64 << 10)


@dataclass(frozen=True)
class Built:
    """What was built.

    Attributes:
        folder: Of diffusers.
        result: Of the build.
        told: Its lines, as a command line shows them.
    """

    folder: Path
    result: BuildResult
    told: tuple[str, ...]


def build_folder(folder: Path, how: BuildSettings) -> Built:
    description = describe({"model": {"source": folder.name}}, "test")
    told: list[str] = []
    plan = BuildPlan(description, folder.parent, folder.parent / "edit.port", how)
    result = build(plan, lambda step, line: told.append(f"{step}: {line}"))
    return Built(folder, result, tuple(told))


_BUILT: dict[str, Built] = {}


def tiny(places: pytest.TempPathFactory) -> Built:
    """Return the bundle of the tiny folder."""
    if "tiny" not in _BUILT:
        folder = places.mktemp("tiny-edit") / "Tiny-Edit"
        _BUILT["tiny"] = build_folder(write_folder(folder), HOW)
    return _BUILT["tiny"]
