"""A graph of five nodes, one of them an Identity, made without PyTorch; and how it is compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from anyport.graph.equality import Equality
from anyport.graph.fastest import RaceSettings
from anyport.graph.rewriting import load_graph
from anyport.graph.simplifiers import Simplifier
from anyport.graph.simplify import SimplifySettings
from anyport.graph.storing import move_out, write_model
from anyport.graph.tooltrial import TrialSettings
from anyport.tensors import dim, tensor
from anyport.verify import PartSpec, SweepSettings, plan_cases
from tests.runtime.networks import Tensors, save

if TYPE_CHECKING:
    import onnx

PLANTED = Path(__file__).with_name("planted.py")
INPUTS = (tensor("x", "float32[batch, 16]"),)
OUTPUTS = (tensor("y", "float32[batch, 16]"),)
DIMS = {"batch": dim("batch", "1..8")}
FLOAT = TensorProto.FLOAT


def perceptron(path: Path) -> Path:
    """Write the graph, its weights inside."""
    rng = np.random.default_rng(5)
    weights = {
        "first.weight": rng.normal(0, 0.3, (16, 32)).astype(np.float32),
        "first.bias": rng.normal(0, 0.3, (32,)).astype(np.float32),
        "second.weight": rng.normal(0, 0.3, (32, 16)).astype(np.float32),
    }
    form = (FLOAT, ["batch", 16])
    return save(path, nodes(), Tensors({"x": form}, {"y": form}, weights))


def nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("MatMul", ["x", "first.weight"], ["product"]),
        helper.make_node("Add", ["product", "first.bias"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["same"]),
        helper.make_node("Tanh", ["same"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second.weight"], ["y"]),
    ]


def stored(folder: Path) -> Path:
    """Write the graph as a build does: ``model.onnx``, ``weights.safetensors``, ``modules.json``."""
    model = load_graph(perceptron(folder / "plain.onnx"))
    (folder / "plain.onnx").unlink()
    path = folder / "model.onnx"
    move_out(model, folder / "weights.safetensors", frozenset(model.graph.initializers))
    write_model(model, path)
    known = ", ".join(f'"{name}": {{}}' for name in ("product", "sum", "same", "hidden", "y"))
    (folder / "modules.json").write_text(f'{{"values": {{{known}}}}}', encoding="utf-8")
    return path


def equality(max_cases: int = 8) -> Equality:
    plan = plan_cases(INPUTS, DIMS, SweepSettings(max_cases=max_cases))
    return Equality(PartSpec("network", "fp32", INPUTS, OUTPUTS, DIMS, reference="the original"), plan)


def planted(name: str) -> Simplifier:
    return Simplifier(name, None, PLANTED)


def settings(
    *names: str,
    timeout_s: float = 60.0,
    memory_limit_bytes: int | None = None,
    hollow_from_bytes: int = 10**9,
) -> SimplifySettings:
    """Return settings with planted tools, quick measurements and one level."""
    trial = TrialSettings(memory_limit_bytes, timeout_s, hollow_from_bytes)
    tools = tuple(planted(name) for name in names)
    return SimplifySettings(tools, ("all",), trial, RaceSettings(budget_s=1.0))
