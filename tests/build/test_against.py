from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyport.build.against import described, torch_reference
from anyport.errors import SourceError
from anyport.runtime import open_session
from anyport.runtime.declared import signature_of_file
from anyport.verify import SweepSettings, plan_cases
from tests.graph.smallgraphs import perceptron
from tests.house import tree

if TYPE_CHECKING:
    from pathlib import Path

MODEL = """
import torch
def load():
    layer = torch.nn.Linear(16, 16, bias=False)
    torch.nn.init.ones_(layer.weight)
    return layer.eval()
"""


def test_a_file_has_a_reference_in_pytorch(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    path = perceptron(tmp_path / "net.onnx")
    signature = signature_of_file(path, open_session(path), {}, {"batch": "1..4"})
    reference = torch_reference(path, f"{tmp_path / 'model.py'}:load", signature)
    case = plan_cases(signature.inputs, signature.dims, SweepSettings(max_cases=1)).cases[0]
    answer = reference.answer(case)
    x = case.arrays(signature.inputs)["x"]
    assert answer.outputs["y"] == pytest.approx(x.sum(1, keepdims=True).repeat(16, 1), abs=1e-5)
    assert answer.floors["y"].max_abs > 0


def test_a_source_that_is_not_there_is_said(tmp_path: Path) -> None:
    path = perceptron(tmp_path / "net.onnx")
    signature = signature_of_file(path, open_session(path), {}, {"batch": "1..4"})
    with pytest.raises(SourceError, match="gone.py"):
        torch_reference(path, f"{tmp_path / 'gone.py'}:load", signature)


def test_the_words_of_a_project_stand_under_those_of_the_user() -> None:
    inputs, dims = described(
        str(tree.ROOT / "examples" / "digits"), {"other": "float32[2]"}, {"batch": "1..2"}
    )
    assert inputs == {"pixel_values": "float32[batch, 1, 8, 8]", "other": "float32[2]"}
    assert dims == {"batch": "1..2"}
    assert described("model.py:load", {}, {"n": "1..2"}) == ({}, {"n": "1..2"})
