"""The tensors of a plain file: its own words, those written into it, those of the user."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import TensorProto, helper

from anyport.errors import BundleError, UsageError
from anyport.runtime import open_session
from anyport.runtime.declared import libraries_of, signature_of_file, written_words
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path


def written(path: Path, text: str) -> Path:
    model = onnx.load(str(networks.affine(path)))
    onnx.helper.set_model_props(model, {"anyport.signature": text})
    onnx.save(model, str(path))
    return path


def test_a_file_of_another_maker_speaks_for_itself(tmp_path: Path) -> None:
    path = networks.affine(tmp_path / "a.onnx")
    found = signature_of_file(path, open_session(path), {}, {})
    assert [str(spec) for spec in (*found.inputs, *found.outputs)] == ["float32[batch, 3]"] * 2
    assert found.dims == {}
    assert written_words(path) == {}


def test_the_users_words_go_above_the_written_ones(tmp_path: Path) -> None:
    words = {"inputs": {"x": "float32[batch, 3] 0..1"}, "dims": {"batch": "1..16"}}
    path = written(tmp_path / "a.onnx", json.dumps(words))
    found = signature_of_file(path, open_session(path), {}, {})
    assert (str(found.inputs[0]), str(found.dims["batch"])) == ("float32[batch, 3] 0..1", "1..16")
    said = signature_of_file(path, open_session(path), {"x": "float32[batch, 3] 0..9"}, {"batch": "2..4"})
    assert (said.inputs[0].high, str(said.dims["batch"])) == (9, "2..4")


@pytest.mark.parametrize(
    ("inputs", "dims", "text"),
    [
        ({"y": "float32[batch, 3]"}, {}, "--input 'y' is no input of a.onnx: x"),
        ({}, {"height": "1..2"}, "--dim 'height' is no axis of a.onnx: batch"),
    ],
)
def test_words_that_do_not_fit_are_refused(
    tmp_path: Path, inputs: dict[str, str], dims: dict[str, str], text: str
) -> None:
    path = networks.affine(tmp_path / "a.onnx")
    with pytest.raises(UsageError) as caught:
        signature_of_file(path, open_session(path), inputs, dims)
    assert str(caught.value) == text


def test_damaged_words_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", "{")
    with pytest.raises(BundleError, match="a.onnx has a signature that is no JSON"):
        written_words(path)
    path.write_bytes(b"junk, of no kind")
    with pytest.raises(BundleError, match="a.onnx is no whole .onnx file: it is"):
        written_words(path)
    assert written_words(written(tmp_path / "list.onnx", "[]")) == {}


def test_names_of_other_makers_are_whatever_they_are(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info("onnx::Mul_0", TensorProto.FLOAT, ["n", 4])]
    answer = [helper.make_tensor_value_info("2", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph([helper.make_node("Relu", ["onnx::Mul_0"], ["2"])], "g", value, answer)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "other.onnx")
    session = open_session(tmp_path / "other.onnx")
    inputs = {"onnx::Mul_0": "float32[rows, 4]"}
    found = signature_of_file(tmp_path / "other.onnx", session, inputs, {"rows": "1..8"})
    assert [spec.name for spec in (*found.inputs, *found.outputs)] == ["onnx::Mul_0", "2"]
    assert str(found.inputs[0]) == "float32[rows, 4]"


def test_words_nested_too_deep_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", "[" * 100_000)
    with pytest.raises(BundleError, match="no JSON"):
        written_words(path)
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"anyport.libraries": "[" * 100_000})
    onnx.save(model, str(path))
    assert libraries_of(path) == {}


@pytest.mark.parametrize(("table", "value"), [("inputs", ["a"]), ("outputs", {"y": 5}), ("dims", "batch")])
def test_a_signature_that_is_no_table_of_texts_is_refused(table: str, value: object, tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx", json.dumps({table: value}))
    with pytest.raises(BundleError) as caught:
        written_words(path)
    assert caught.value.what == f"a.onnx has a signature whose '{table}' are no texts"
