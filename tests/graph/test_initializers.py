"""Weights of a file, one by one: right, lazy, and never from outside the folder or beyond the file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from anyport.errors import BundleError
from anyport.graph.initializers import read_initializers
from anyport.graph.storing import StoreOptions
from anyport.runtime.onnxfile import read_metadata
from tests.compress.smallnets import textnet
from tests.graph.exports import holds, shared, weights_of
from tests.graph.narrowgraphs import HALVES, pair

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("weights", ["beside", "inside"])
def test_every_weight_is_read_as_it_is(weights: str, tmp_path: Path) -> None:
    given = shared("encoder")
    graph = given.store(tmp_path, StoreOptions(weights, {"name": "encoder"}))  # type: ignore[arg-type]
    found = read_initializers(graph.path)
    state = weights_of(given.part.module)
    assert given.converted.weight_names <= set(found)
    for name in given.converted.weight_names:
        array = found[name].load()
        assert (found[name].shape, found[name].dtype) == (array.shape, str(array.dtype))
        assert holds(array, state[name])
    assert read_metadata(graph.path) == {"name": "encoder"}


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("half", HALVES)
def test_a_weight_behind_a_cast_is_the_array_that_is_computed_with(
    half: str, beside: bool, tmp_path: Path
) -> None:
    found = pair(textnet(tmp_path / "net.onnx"), half, beside=beside)
    wide, narrow = read_initializers(found.wide), read_initializers(found.narrow)
    assert narrow.keys() == wide.keys()
    for name, array in wide.items():
        one, other = array.load(), narrow[name].load()
        assert (array.shape, array.dtype) == (narrow[name].shape, narrow[name].dtype)
        assert (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())


def write(path: Path, location: str, offset: int, n: int = 4, length: int | None = None) -> Path:
    """Write a model whose one weight is float32[n] at an offset of another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[n])
    weight.data_location = TensorProto.EXTERNAL
    places = {"location": location, "offset": str(offset)}
    for key, value in (places | ({"length": str(length)} if length is not None else {})).items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [n])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [n])
    constant = numpy_helper.from_array(np.array([1, 2], np.float32), "value")
    nodes = [
        helper.make_node("Add", ["x", "w"], ["y"]),
        helper.make_node("Constant", [], ["c"], value=constant),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_external_data_of_any_writer(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 8 + np.arange(4, dtype=np.float32).tobytes())
    found = read_initializers(write(tmp_path / "m.onnx", "w.bin", 8))
    assert set(found) == {"w", "c"}
    assert np.array_equal(found["w"].load(), [0, 1, 2, 3])
    assert np.array_equal(found["c"].load(), [1, 2])


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    tensors = [
        numpy_helper.from_array(np.array(3, np.float32), "s"),
        numpy_helper.from_array(np.zeros((0, 3)), "e"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [])
    node = helper.make_node("Add", ["x", "s"], ["y"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y], tensors)), str(path))
    found = read_initializers(path)
    assert (found["s"].load().shape, float(found["s"].load())) == ((), 3.0)
    assert found["e"].load().shape == (0, 3)


@pytest.mark.parametrize("location", ["../w.bin", "a/../../w.bin", "link.bin"])
def test_weights_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 64)
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    found = read_initializers(write(folder / "m.onnx", location, 0))
    with pytest.raises(BundleError, match="weight 'w' lies outside the model's folder") as caught:
        found["w"].load()
    assert caught.value.where == location


def test_an_absolute_location_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 64)
    (tmp_path / "model").mkdir()
    found = read_initializers(write(tmp_path / "model" / "m.onnx", str(tmp_path / "w.bin"), 0))
    with pytest.raises(BundleError, match="weight 'w' lies outside the model's folder"):
        found["w"].load()


@pytest.mark.parametrize(("offset", "end"), [(4, 20), (16, 32), (1 << 40, (1 << 40) + 16), (-4, 12)])
def test_a_file_that_is_cut_short(offset: int, end: int, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 16)
    found = read_initializers(write(tmp_path / "m.onnx", "w.bin", offset))
    text = f"weight 'w' ends at byte {end}, 'w.bin' has 16: the file is cut short"
    with pytest.raises(BundleError, match=re.escape(text)):
        found["w"].load()


def test_a_truncated_export(tmp_path: Path) -> None:
    graph = shared("encoder").store(tmp_path)
    assert graph.weights is not None
    content = graph.weights.read_bytes()
    graph.weights.write_bytes(content[:-4])
    found = read_initializers(graph.path)
    with pytest.raises(BundleError, match=re.escape("'weights.safetensors' has ")):
        _ = [array.load() for array in found.values()]


def test_a_missing_weights_file(tmp_path: Path) -> None:
    graph = shared("encoder").store(tmp_path)
    assert graph.weights is not None
    graph.weights.unlink()
    with pytest.raises(BundleError, match=re.escape("there is no file 'weights.safetensors'")):
        read_initializers(graph.path)["embedding.weight"].load()
