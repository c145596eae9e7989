from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from anyport.cases import Case, Normal, Uniform
from anyport.graph.capture import capture
from anyport.graph.convert import convert
from anyport.graph.localize import Difference, first_difference, module_exits
from anyport.graph.modulemap import ModuleMap, Origin
from anyport.graph.storing import StoreOptions, store
from anyport.source import find_model
from tests.build.building import plan_for

if TYPE_CHECKING:
    from pathlib import Path

CASES = {
    "image_and_text": Case(
        "c",
        "random",
        {"batch": 2, "sequence": 3},
        {"pixel_values": Normal(1), "input_ids": Uniform(2, 0, 49)},
        {},
    ),
    "scores_and_choice": Case("c", "random", {"batch": 4}, {"features": Normal(3)}, {}),
}


def damaged(name: str, weight: str | None, folder: Path) -> Difference | None:
    """Export a model of the zoo, scale one weight by 1.02, and look for it."""
    [part] = find_model(plan_for(name, folder / "m.port").request).parts
    captured = capture(part)
    converted = convert(captured, part)
    graph = store(converted, folder / "model.onnx", StoreOptions("inside"))
    model = onnx.load(str(graph.path))
    for tensor in model.graph.initializer:
        if tensor.name == weight:
            values = onnx.numpy_helper.to_array(tensor) * 1.02
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), weight))
    onnx.save(model, str(graph.path))
    return first_difference(part, graph.path, converted.modules, CASES[name])


@pytest.mark.parametrize(
    ("name", "weight", "module"),
    [
        ("image_and_text", "picture.3.weight", "picture.3"),
        ("image_and_text", "words.weight", "words"),
        ("image_and_text", "mix.weight", "mix"),
        # the convolution is folded with the BatchNorm after it: the graph has one value for both
        ("image_and_text", "picture.0.weight", "picture.1"),
        ("scores_and_choice", "layers.0.weight", "layers.0"),
        ("scores_and_choice", "layers.2.weight", "layers.2"),
    ],
)
def test_the_module_that_was_damaged_is_named(name: str, weight: str, module: str, tmp_path: Path) -> None:
    found = damaged(name, weight, tmp_path)
    assert found is not None
    assert found.module == module
    assert found.line.startswith("zoo.py:")
    assert str(found).startswith(f"first differs in module '{module}' ({found.kind}, zoo.py:")


def test_a_right_graph_differs_nowhere(tmp_path: Path) -> None:
    assert damaged("image_and_text", None, tmp_path) is None


def test_a_modules_exit_is_the_value_read_outside_of_it() -> None:
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["inner"]),
        onnx.helper.make_node("Neg", ["inner"], ["outer"]),
        onnx.helper.make_node("Abs", ["outer"], ["y"]),
    ]
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [value]))
    modules = ModuleMap({"inner": Origin("a.b"), "outer": Origin("a"), "y": Origin("c")})
    assert module_exits(model, modules) == {"a.b": "inner", "a": "outer", "c": "y"}
