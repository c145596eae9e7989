from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from anyport.errors import ExportError
from anyport.graph.rewriting import (
    external_names,
    fingerprint,
    hollow_out,
    load_graph,
    read_rewritten,
    restore,
    value_names,
    weight_names,
    weights_bytes,
)
from anyport.graph.storing import check_file, write_model
from tests.graph import planted
from tests.graph.smallgraphs import perceptron, stored

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = {"first.weight", "first.bias", "second.weight"}


def rewritten(name: str, folder: Path) -> str:
    """Let a planted tool rewrite the graph; return why that is not taken back, or nothing."""
    source, target = perceptron(folder / "in.onnx"), folder / "out.onnx"
    planted.TOOLS[name](source, target)
    try:
        model = read_rewritten(target, source.stat().st_size)
        restore(model, load_graph(source), frozenset())
    except ExportError as err:
        return err.what
    write_model(model, folder / "restored.onnx")
    check_file(folder / "restored.onnx")
    return ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("forgetful", ""),
        ("frozen_axis", "axis 0 of input 'x' became the constant 3, it was 'batch'"),
        ("garbage", "what it wrote is no .onnx file"),
        ("honest", ""),
        ("huge", "the file grew from "),
        ("nothing", "it ended well and wrote no file"),
        ("other_opset", "it changed the opset of 'ai.onnx' from 20 to 21"),
        ("renamed_output", "it lost the output 'y', it has 'z'"),
    ],
)
def test_what_a_tool_may_not_do(name: str, expected: str, tmp_path: Path) -> None:
    found = rewritten(name, tmp_path)
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_names_of_axes_and_notes_are_put_back(tmp_path: Path) -> None:
    assert rewritten("forgetful", tmp_path) == ""
    before, after = onnx.load(tmp_path / "in.onnx"), onnx.load(tmp_path / "restored.onnx")
    assert len(after.graph.node) == len(before.graph.node) - 1
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.metadata_props) == list(before.metadata_props)
    for name in ("producer_name", "ir_version", "opset_import"):
        assert getattr(after, name) == getattr(before, name)


def test_notes_of_nodes_follow_the_value_they_compute(tmp_path: Path) -> None:
    source = perceptron(tmp_path / "in.onnx")
    model = onnx.load(source)
    for node in model.graph.node:
        node.doc_string = f"makes {node.output[0]}"
        node.metadata_props.add(key="namespace", value=node.output[0])
    onnx.save(model, source)
    rewriter, original = load_graph(source), load_graph(source)
    for node in rewriter.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = "mine"
    restore(rewriter, original, frozenset())
    for node in rewriter.graph.all_nodes():
        assert node.doc_string == f"makes {node.outputs[0].name}"
        assert dict(node.metadata_props) == {"namespace": node.outputs[0].name}


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_a_hollow_graph_has_no_large_weights_and_is_filled_again(where: str, tmp_path: Path) -> None:
    source = perceptron(tmp_path / "in.onnx") if where == "inside" else stored(tmp_path)
    hollow, original = load_graph(source), load_graph(source)
    hollowed = hollow_out(hollow)
    small = {"first.bias"} if where == "beside" else set()
    assert hollowed == {"first.weight", "second.weight"} | small
    assert weights_bytes(hollow) == (32 * 4 if where == "inside" else 0)
    assert not external_names(hollow)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write_model(hollow, folder / "hollow.onnx")
    check_file(folder / "hollow.onnx")
    back = read_rewritten(folder / "hollow.onnx", source.stat().st_size)
    restore(back, original, hollowed)
    assert [value.name for value in back.graph.inputs] == ["x"]
    assert fingerprint(back) == fingerprint(original)


def test_a_weight_that_comes_back_in_another_form_is_refused(tmp_path: Path) -> None:
    source = perceptron(tmp_path / "in.onnx")
    hollow = load_graph(source)
    hollowed = hollow_out(hollow)
    value = next(value for value in hollow.graph.inputs if value.name == "first.weight")
    value.shape = type(value.shape)([32, 16])  # type: ignore[misc]
    with pytest.raises(ExportError, match=r"^weight 'first.weight' came back in another form$"):
        restore(hollow, load_graph(source), hollowed)


def test_new_inputs_operators_and_orders_are_refused(tmp_path: Path) -> None:
    source = perceptron(tmp_path / "in.onnx")

    def refused(change: str) -> str:
        model = onnx.load(source)
        if change == "input":
            model.graph.input.append(helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, [1]))
        if change == "domain":
            model.graph.node[3].domain = "com.microsoft"
            model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        if change == "rank":
            model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1
        if change == "dtype":
            model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
        onnx.save(model, tmp_path / "out.onnx")
        with pytest.raises(ExportError) as caught:
            restore(read_rewritten(tmp_path / "out.onnx", 10_000), load_graph(source), frozenset())
        return caught.value.what

    assert refused("input") == "it has a new input 'extra'"
    assert refused("domain") == "it uses operators of 'com.microsoft', which the original does not"
    assert refused("rank") == "output 'y' became 3 axes, it had 2"
    assert refused("dtype") == "output 'y' became DOUBLE, it was FLOAT"


def test_a_domain_that_nothing_uses_is_dropped(tmp_path: Path) -> None:
    source = perceptron(tmp_path / "in.onnx")
    model = load_graph(source)
    model.opset_imports["com.microsoft"] = 1
    restore(model, load_graph(source), frozenset())
    assert list(model.opset_imports) == [""]


def test_weights_outside_of_the_file_are_not_followed(tmp_path: Path) -> None:
    path = stored(tmp_path)
    with pytest.raises(ExportError, match=r"^it wrote weights outside of its file$"):
        read_rewritten(path, 100_000)


def test_a_fingerprint_sees_all_but_names(tmp_path: Path) -> None:
    source = perceptron(tmp_path / "in.onnx")
    known = fingerprint(load_graph(source))
    model = load_graph(source)
    for node in model.graph.all_nodes():
        node.name = f"{node.name}_renamed"
        if node.outputs[0].name != "y":
            node.outputs[0].name = f"{node.outputs[0].name}_renamed"
    assert fingerprint(model) == known
    changed = onnx.load(source)
    bias = next(w for w in changed.graph.initializer if w.name == "first.bias")
    array = onnx.numpy_helper.to_array(bias).copy()
    array[3] = np.nextafter(array[3], np.float32(9))
    bias.CopyFrom(onnx.numpy_helper.from_array(array, bias.name))
    onnx.save(changed, tmp_path / "bit.onnx")
    assert fingerprint(load_graph(tmp_path / "bit.onnx")) != known
    changed = onnx.load(source)
    changed.graph.node[3].op_type = "Sigmoid"
    onnx.save(changed, tmp_path / "op.onnx")
    assert fingerprint(load_graph(tmp_path / "op.onnx")) != known


def test_what_a_graph_is_made_of(tmp_path: Path) -> None:
    inside, beside = load_graph(perceptron(tmp_path / "in.onnx")), load_graph(stored(tmp_path))
    assert weight_names(inside) == weight_names(beside) == WEIGHTS
    assert (external_names(inside), external_names(beside)) == (frozenset(), WEIGHTS)
    assert value_names(inside) == {"product", "sum", "same", "hidden", "y"}
    assert weights_bytes(inside) == weights_bytes(beside) == 4 * (16 * 32 + 32 + 32 * 16)
