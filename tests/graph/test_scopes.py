"""The modules of a traced graph: found through the names of its nodes, named as the module names them."""

from __future__ import annotations

import linecache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from anyport.graph.scopes import name_after_modules, python_trace
from anyport.source import Adapter
from anyport.source.lines import user_line
from tests.graph.exports import PARTS, export, is_line, shared
from tests.source.parts import part_of

OPSET = 17
HERE = Path(__file__)


@pytest.mark.parametrize("name", PARTS)
def test_nearly_every_value_has_a_module_and_a_line(name: str) -> None:
    given = shared(name, OPSET)
    known = dict(given.part.module.named_modules())
    values = {v.name for node in given.converted.model.graph.all_nodes() for v in node.outputs}
    origins = given.converted.modules.values
    assert set(origins) <= values
    assert len(origins) >= 0.9 * len(values), sorted(values - set(origins), key=str)
    for value, origin in origins.items():
        assert origin.module in known, (value, origin)
        assert not origin.line or is_line(origin.line), origin


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = torch.tanh(self.dense(x))
        return answer


class Nested(nn.Module):
    """Lists in lists, a module called past its own, a module called twice, one called like the adapter's."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleList([Inner(), Inner()]), nn.ModuleList([Inner()])])
        self.module = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.ReLU(), nn.Sigmoid()))

    def forward(self, x: Tensor) -> Tensor:
        for group in self.layers:
            for layer in group:  # type: ignore[attr-defined]
                x = layer(x)
        direct = self.layers[0][1].dense(x)  # type: ignore[index]
        answer: Tensor = self.module(direct + x) * 2
        return answer


def test_a_name_leads_to_its_module() -> None:
    given = export(part_of(Nested()), OPSET).converted
    modules = {
        node.op_type: given.modules.values[str(node.outputs[0].name)].module for node in given.model.graph
    }
    assert modules["Relu"] == "module.1.0"
    assert modules["Sigmoid"] == "module.1.1"
    assert modules["Mul"] == ""
    tanh = [
        given.modules.values[str(n.outputs[0].name)].module for n in given.model.graph if n.op_type == "Tanh"
    ]
    assert tanh == ["layers.0.0", "layers.0.1", "layers.1.0"]
    gemm = [
        given.modules.values[str(n.outputs[0].name)].module for n in given.model.graph if n.op_type == "Gemm"
    ]
    assert gemm[:3] == ["layers.0.0.dense", "layers.0.1.dense", "layers.1.0.dense"]
    assert gemm[3] == ""  # three layers are called 'dense', and none is nearer: the module around them
    assert gemm[4] == "module.0"


def test_the_adapter_is_left_out_of_the_names() -> None:
    given = shared("bert", OPSET).converted.model
    names = [node.name or "" for node in given.graph]
    names += [value.name or "" for node in given.graph for value in node.outputs]
    assert "/encoder/layer.0/attention/self/query/MatMul" in names
    assert not [name for name in names if name.startswith("/module")]
    assert len(set(names)) == len(names)


def test_a_stack_is_read_as_python_writes_it() -> None:
    linecache.checkcache()
    number = next(i for i, line in enumerate(HERE.read_text().splitlines(), 1) if "torch.tanh(" in line)
    inner = "/x/site-packages/torch/nn/modules/linear.py(3): forward"
    text = f"{inner}\n{HERE}({number}): forward\n{HERE}(1): <module>"
    assert user_line(python_trace(text)) == (
        f"test_scopes.py:{number}: answer: Tensor = torch.tanh(self.dense(x))"
    )
    assert python_trace("") == ""
    assert python_trace("no stack at all") == ""


class TwoNorms(nn.Module):
    """Fresh norms: all their weights are ones, all their biases zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.second(torch.tanh(self.first(x)))
        return answer


def test_equal_weights_stay_separate() -> None:
    """The exporter keeps one of them, and a checkpoint in which they differ would not fit the graph."""
    given = export(part_of(TwoNorms()), OPSET).converted
    assert given.weight_names == {"first.bias", "first.weight", "second.bias", "second.weight"}
    assert not [node for node in given.model.graph if node.op_type == "Identity"]


def test_weights_that_hold_a_norm_are_called_what_they_were() -> None:
    given = shared("resnet", OPSET).converted
    names = set(given.model.graph.initializers)
    assert "encoder.stages.0.layers.0.layer.0.convolution.weight" in given.weight_names
    assert "embedder.embedder.convolution.bias" in names
    assert "embedder.embedder.convolution.bias" not in given.weight_names  # the module has none
    assert not [name for name in names if name.startswith("onnx::")]


def test_a_graph_without_notes_is_left_alone() -> None:
    x = ir.Value(name="x", shape=ir.Shape([3]), type=ir.TensorType(ir.DataType.FLOAT))
    weight = ir.Value(name="w", const_value=ir.tensor(np.ones(3, np.float32), name="w"))
    node = ir.node("Add", [x, weight], name="plain")
    model = ir.Model(
        ir.Graph([x], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": OPSET}),
        ir_version=8,
    )
    name_after_modules(model, Adapter(part_of(Inner())))
    assert (node.name, list(model.graph.initializers), dict(node.metadata_props)) == ("plain", ["w"], {})
