"""A captioner that was built and compressed, as the tests of `anyport.build.task_compressing` share it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from anyport.build import BuildPlan, build, describe, resuming, task_compressing
from anyport.compress.compressing import compress_graph
from anyport.graph.fastest import RaceSettings
from tests.build.building import QUICK
from tests.build.trained_blip import write_pictures, write_trained

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.build import BuildResult
    from anyport.build.parts import ProvenPart
    from anyport.compress.compressing import CompressRequest
    from anyport.compress.compression import Compression
    from anyport.recipe import Model

PARTS = ("vision_encoder", "cross_keys", "text_decoder")
METHOD = "int8-dynamic:u8s8"
NAME = "int8-dynamic-u8s8"
N_PICTURES = 72


@dataclass(frozen=True)
class Built:
    """A captioner that was built, and what is needed to compress it once more."""

    folder: Path
    result: BuildResult
    lines: tuple[tuple[str, str], ...]
    model: Model
    proven: tuple[ProvenPart, ...]

    def copy(self, place: Path) -> tuple[Path, list[ProvenPart]]:
        """Return a bundle of the exact variant alone, and its parts."""
        bundle = place / "b.port"
        shutil.copytree(self.result.path, bundle)
        for part in PARTS:
            shutil.rmtree(bundle / "parts" / part / NAME, ignore_errors=True)
        for file in (bundle / "proof").glob(f"{NAME}.*"):
            file.unlink()
        moved = [
            replace(
                one,
                graph=replace(
                    one.graph, path=bundle / "parts" / one.part.name / "fp32" / one.graph.path.name
                ),
            )
            for one in self.proven
        ]
        return bundle, moved

    def ready(self, graph: Path, output: Path, _: CompressRequest) -> Compression:
        """Hand out what was made of a graph before, in the place of `compress_graph`."""
        part = graph.parents[1].name
        for file in (self.result.path / "parts" / part / NAME).iterdir():
            shutil.copy(file, output.parent)
        return self.result.compressions[NAME][part]


def plan_for(folder: Path, source: str = "tiny", **tables: Any) -> BuildPlan:
    made = {"compress": [METHOD], "prefer": "size"}
    words = {"model": {"source": source}, "build": made, "calibrate": {"samples": "photos"}} | tables
    return BuildPlan(describe(words, "test"), folder, folder / "blip.port", replace(QUICK, max_cases=24))


def quickly(graph: Path, output: Path, request: CompressRequest, *more: Any) -> Compression:
    """Race for a moment only: what is faster is no question here."""
    return compress_graph(graph, output, replace(request, race=RaceSettings(budget_s=1.0)), *more)


def build_captioner(folder: Path) -> Built:
    """Train a captioner for a moment, and build it with an INT8 variant."""
    write_trained(folder / "tiny")
    write_pictures(folder / "photos", N_PICTURES)
    lines: list[tuple[str, str]] = []
    seen: list[tuple[Model, ProvenPart]] = []
    with pytest.MonkeyPatch.context() as patch:
        own = resuming.export_and_prove

        def noted(model: Model, *more: Any) -> ProvenPart:
            seen.append((model, own(model, *more)))
            return seen[-1][1]

        patch.setattr(resuming, "export_and_prove", noted)
        patch.setattr(task_compressing, "compress_graph", quickly)
        result = build(plan_for(folder), lambda step, text: lines.append((step, text)))
    return Built(folder, result, tuple(lines), seen[0][0], tuple(one for _, one in seen))
