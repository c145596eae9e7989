from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import numpy_helper

from anyport.compress.methods import Fp16Storage
from anyport.compress.quantizing import quantize
from anyport.compress.rewrite import kept_line
from tests.compress.smallnets import convnet, pictures
from tests.compress.test_quantizing import agreement

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("level", ["none", "all"])
def test_weights_are_halved_and_answers_nearly_alike(tmp_path: Path, level: str) -> None:
    graph = convnet(tmp_path / "net.onnx")
    found = quantize(graph, Fp16Storage(), None, tmp_path / "half.onnx")
    assert agreement(graph, found.path, pictures(), level) > 0.99999
    assert graph.stat().st_size / found.size_bytes > 1.9
    assert found.operators["Cast"] == found.n_changed == 4  # biases are smaller than 1 KiB


def test_a_weight_that_16_bits_cannot_hold_stays(tmp_path: Path) -> None:
    graph = convnet(tmp_path / "net.onnx")
    model = onnx.load(graph)
    weight = next(w for w in model.graph.initializer if w.name == "second.weight")
    array = numpy_helper.to_array(weight).copy()
    array[0, 0, 0, 0] = 70_000
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(model, graph)
    found = quantize(graph, Fp16Storage(), None, tmp_path / "half.onnx")
    assert found.n_changed == 3
    assert kept_line(found.kept_float) == "1 Conv: a weight is beyond 65504, the largest number of 16 bits"
