from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import onnx
import pytest

from anyport.graph import simplifier_program
from anyport.graph.isolation import Limits, run_limited
from anyport.graph.simplifiers import SIMPLIFIERS
from tests.graph.smallgraphs import perceptron

if TYPE_CHECKING:
    from pathlib import Path


def test_it_has_every_tool_of_the_table() -> None:
    assert list(simplifier_program.TOOLS) == list(SIMPLIFIERS)


@pytest.mark.parametrize("name", SIMPLIFIERS)
def test_every_tool_writes_a_file_with_its_weights(name: str, tmp_path: Path) -> None:
    tool = SIMPLIFIERS[name]
    if tool.version is None:
        pytest.skip(f"{tool.package} is not installed")
    source, target = perceptron(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    found = run_limited(tool.program, (name, str(source), str(target)), Limits(2 << 30, 120.0), tmp_path)
    assert found.problem == ""
    written = onnx.load(target)
    assert "Identity" not in {node.op_type for node in written.graph.node} or name == "onnxscript"
    assert all(tensor.HasField("raw_data") for tensor in written.graph.initializer)
    assert not {"onnxsim", "onnxslim"} & set(sys.modules), "tools stay out of this process"
