from __future__ import annotations

import os
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import pytest

from anyport.compress.borrowing import borrow
from anyport.errors import InputError
from anyport.graph.rewriting import external_names, load_graph
from tests.compress.smallnets import beside, convnet, pictures
from tests.compress.test_quantizing import agreement
from tests.graph.narrowgraphs import HALVES, pair

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("linkable", [False, True])
def test_the_double_answers_alike_and_its_weights_are_outside(
    tmp_path: Path, *, outside: bool, linkable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another disk")

    if not linkable:
        monkeypatch.setattr(os, "link", refuse)
    graph = convnet(tmp_path / "model.onnx")
    if outside:
        beside(graph)
    content = graph.read_bytes()
    (tmp_path / "double").mkdir()
    double = borrow(graph, tmp_path / "double")
    assert external_names(load_graph(double))
    assert agreement(graph, double, pictures(2)) == pytest.approx(1, abs=1e-6)
    assert graph.read_bytes() == content
    weights = tmp_path / "double" / "weights.safetensors"
    if outside:
        assert weights.samefile(tmp_path / "weights.safetensors") is linkable


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("half", HALVES)
def test_the_double_of_a_narrow_graph_is_wide(tmp_path: Path, *, outside: bool, half: str) -> None:
    graph = pair(convnet(tmp_path / "net.onnx"), half, beside=outside).narrow
    (tmp_path / "double").mkdir()
    double = borrow(graph, tmp_path / "double")
    stored = [value.const_value for value in ir.load(double).graph.initializers.values()]
    assert {tensor.dtype for tensor in stored if tensor is not None} == {ir.DataType.FLOAT}
    assert agreement(graph, double, pictures(2)) == pytest.approx(1, abs=1e-6)


def test_weights_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "double").mkdir()
    graph = beside(convnet(tmp_path / "in" / "model.onnx"))
    model = onnx.load(graph, load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = "../stolen.safetensors"
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"weights of model.onnx lie outside its folder: '../stolen"):
        borrow(graph, tmp_path / "double")
    assert not (tmp_path / "stolen.safetensors").exists()
