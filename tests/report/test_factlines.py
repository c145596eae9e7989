"""What a manifest says wrongly of its graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from anyport.report import Mark, release_checklist, traits_of
from anyport.task import TASKS
from tests.report.listing import QUICK, Subject, line

if TYPE_CHECKING:
    from pathlib import Path


def test_a_manifest_that_is_true_passes(tmp_path: Path) -> None:
    found = line("manifest as the file", tmp_path, Subject())
    assert (found.mark, found.evidence) == (
        Mark.PASS,
        "opset 20, nodes 2, parameters 1, 2 kinds of operators, as the manifest says; task classify",
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"opset": 11}, "the manifest says 11 opset, the file has 20"),
        ({"n_nodes": 7}, "the manifest says 7 nodes, the file has 2"),
        ({"n_parameters": 9}, "the manifest says 9 parameters, the file has 1"),
        ({"operators": {"Conv": 1, "Flatten": 1, "Mul": 1}}, "the manifest says Conv 1, the file has 0"),
    ],
)
def test_a_manifest_that_is_not_true_fails(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    with Subject().open(tmp_path) as opened:
        entry = opened.manifest.variants["fp32"]
        graph = msgspec.structs.replace(entry.graphs["network"], **wrong)
        variant = msgspec.structs.replace(entry, graphs={"network": graph})
        opened.manifest = msgspec.structs.replace(opened.manifest, variants={"fp32": variant})
        found = release_checklist(opened, QUICK).lines[0]
        traits = traits_of(opened)
    assert (found.mark, found.evidence) == (Mark.FAIL, words)
    assert (traits.opset, traits.operators) == (20, {"Flatten": 1, "Mul": 1})


def test_a_task_that_is_not_there_fails(tmp_path: Path) -> None:
    with Subject().open(tmp_path) as opened:
        opened.manifest = msgspec.structs.replace(opened.manifest, task="dream")
        found = release_checklist(opened, QUICK).lines[0]
    assert found.evidence == f"there is no task 'dream': {', '.join(sorted(TASKS))}"
