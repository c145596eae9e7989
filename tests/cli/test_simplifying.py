from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anyport.cli.simplifying import SimplifyWords, checked, equality_of, settings_of
from anyport.errors import UsageError
from anyport.graph.simplify import SimplifySettings
from tests.graph.smallgraphs import perceptron

if TYPE_CHECKING:
    from pathlib import Path


def words(folder: Path) -> SimplifyWords:
    path = perceptron(folder / "in.onnx")
    return SimplifyWords(
        path,
        folder / "out.onnx",
        None,
        None,
        None,
        None,
        None,
        (),
        (),
        None,
        None,
        force=False,
        as_json=False,
    )


def test_what_is_absent_keeps_its_default(tmp_path: Path) -> None:
    assert settings_of(checked(words(tmp_path))) == SimplifySettings()
    equality = equality_of(words(tmp_path))
    assert {name: str(dim) for name, dim in equality.part.dims.items()} == {"batch": "1..8"}
    assert (equality.part.name, equality.part.reference) == ("in", "in.onnx")
    assert equality.reference is None


def test_what_is_given_arrives(tmp_path: Path) -> None:
    given = replace(
        words(tmp_path),
        tools="onnxslim,none",
        levels="none,all",
        memory_limit_bytes=5,
        timeout_s=7.0,
        dims=("batch=2..4",),
        max_cases=3,
    )
    settings = settings_of(given)
    assert [tool.name for tool in settings.tools] == ["onnxslim"]
    assert settings.levels == ("all", "none")
    assert (settings.trial.memory_limit_bytes, settings.trial.timeout_s) == (5, 7.0)
    equality = equality_of(given)
    assert str(equality.part.dims["batch"]) == "2..4"
    assert len(equality.plan.cases) == 3


def test_a_whole_number_input_needs_a_range(tmp_path: Path) -> None:
    given = replace(words(tmp_path), inputs=("x=int64[batch, 16]",))
    with pytest.raises(UsageError, match="nothing says which whole numbers it takes"):
        equality_of(given)


def test_against_a_source(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import torch\ndef load(): return torch.nn.Linear(16, 16).eval()\n", encoding="utf-8"
    )
    equality = equality_of(replace(words(tmp_path), against=f"{tmp_path / 'model.py'}:load"))
    assert equality.reference is not None
    assert equality.part.reference == "the PyTorch model"
