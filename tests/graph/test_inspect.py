"""What an .onnx file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto, helper

from anyport.errors import InputError
from anyport.graph.inspect import inspect_onnx
from tests.compress.smallnets import convnet
from tests.graph.narrowgraphs import HALVES, pair
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path


def test_everything_is_read_but_the_weights(tmp_path: Path) -> None:
    path = networks.affine(tmp_path / "a.onnx", beside="a.weights")
    (tmp_path / "a.weights").unlink()
    found = inspect_onnx(path)
    assert (found.inputs, found.outputs) == ({"x": "float32[batch, 3]"}, {"y": "float32[batch, 3]"})
    assert (found.opsets, found.ir_version, found.producer) == ({"ai.onnx": 20}, 10, "a test")
    assert (found.n_nodes, found.operators) == (2, {"Add": 1, "Mul": 1})
    assert (found.n_parameters, found.weights_files) == (6, {"a.weights": 24})
    assert found.metadata == {"licence": "MIT"}
    assert found.stored == {"float32": 24}
    assert found.size_bytes == path.stat().st_size


@pytest.mark.parametrize("half", HALVES)
def test_it_is_said_in_which_types_weights_are_stored(half: str, tmp_path: Path) -> None:
    found = inspect_onnx(pair(convnet(tmp_path / "net.onnx"), half).narrow)
    weights = 32 * 3 * 9 + 2 * 32 * 32 * 9 + 40 * 32
    assert found.stored == {half: 2 * weights, "float32": 4 * (32 + 32 + 40)}
    assert found.n_parameters == weights + 32 + 32 + 40


def test_nodes_in_branches_count(tmp_path: Path) -> None:
    def branch(operator: str, name: str) -> object:
        y = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["n"])
        return helper.make_graph([helper.make_node(operator, ["x"], [f"{name}_y"])], name, [], [y])

    choice = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("Relu", "a"), else_branch=branch("Neg", "b")
    )
    vector = (TensorProto.FLOAT, ["n"])
    tensors = networks.Tensors({"x": vector, "c": (TensorProto.BOOL, [])}, {"y": vector})
    found = inspect_onnx(networks.save(tmp_path / "i.onnx", [choice], tensors))
    assert found.operators == {"If": 1, "Neg": 1, "Relu": 1}
    assert found.inputs == {"x": "float32[n]", "c": "bool[]"}


def test_sizes_without_a_name_and_other_types(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    kind = (TensorProto.BFLOAT16, [None, 2])
    found = inspect_onnx(
        networks.save(tmp_path / "b.onnx", nodes, networks.Tensors({"x": kind}, {"y": kind}))
    )
    assert found.inputs == {"x": "bfloat16[?, 2]"}


def test_scalars_count_as_one_parameter(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "s"], ["y"])]
    kind = (TensorProto.FLOAT, ["n"])
    weights = {"s": np.array(2, np.float32)}
    path = networks.save(tmp_path / "s.onnx", nodes, networks.Tensors({"x": kind}, {"y": kind}, weights))
    assert inspect_onnx(path).n_parameters == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"junk, of no kind", "is no .onnx file, or it is cut off"),
        (b"", "is no .onnx file: there is no graph in it"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        inspect_onnx(path)
    assert caught.value.what == f"{path} {message}"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        inspect_onnx(tmp_path / "nope.onnx")
