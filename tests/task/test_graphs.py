"""The graphs of a bundle, and a plain file in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyport.errors import BundleError, UsageError
from anyport.task import TaskOptions
from anyport.task.opening import open_graphs
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path


def test_a_bundle_tells_its_task_and_parts(tmp_path: Path) -> None:
    graphs = open_graphs(networks.corners_bundle(tmp_path))
    assert (graphs.task, list(graphs.parts)) == ("classify", ["network"])
    graphs.open("network", TaskOptions()).close()
    with pytest.raises(UsageError, match=r"the bundle has no variant 'int8' \(known: 'fp32'\)"):
        graphs.open("network", TaskOptions(variant="int8"))
    graphs.close()
    graphs.close()


def test_a_plain_file_has_one_part_and_no_variant(tmp_path: Path) -> None:
    path = networks.affine(tmp_path / "a.onnx")
    graphs = open_graphs(path)
    assert (graphs.task, list(graphs.parts), dict(graphs.settings)) == (None, ["network"], {})
    with pytest.raises(UsageError) as caught:
        graphs.open("network", TaskOptions(variant="int8"))
    assert caught.value.what == f"{path} is a plain .onnx file: it has no variant 'int8'"
    with pytest.raises(UsageError, match="it has no part 'vision'"):
        graphs.open("vision", TaskOptions())


def test_files_beside_the_graphs(tmp_path: Path) -> None:
    graphs = open_graphs(networks.corners_bundle(tmp_path))
    assert b'"parts"' in graphs.read_bytes("proof/cases.json")
    with pytest.raises(BundleError, match="the bundle has no file 'assets/tokenizer.json'"):
        graphs.read_bytes("assets/tokenizer.json")
    path = networks.affine(tmp_path / "a.onnx")
    with pytest.raises(UsageError) as caught:
        open_graphs(path).read_bytes("assets/tokenizer.json")
    assert caught.value.what == f"{path} is a plain .onnx file: it has no file 'assets/tokenizer.json'"
