"""Small graphs that convolve, multiply and look up, made without PyTorch; and quantizers that go wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from anyport.compress.compressing import CompressRequest
from anyport.compress.quantizing import quantize
from anyport.graph.equality import Equality
from anyport.graph.fastest import RaceSettings
from anyport.graph.rewriting import external_names, load_graph
from anyport.graph.storing import move_out, weights_name, write_model
from anyport.runtime import Session, open_session
from anyport.tensors import Signature, dim, tensor
from anyport.verify import PartSpec, SweepSettings, UserMetric, plan_cases
from tests.runtime.networks import Tensors, save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from anyport.compress.methods import Method
    from anyport.compress.quantizing import Quantized
    from anyport.compress.ranges import Range
    from anyport.compress.samples import Samples
    from anyport.verify import Evaluation

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
DIMS = {"batch": dim("batch", "1..4")}
PICTURES = Signature((tensor("x", "float32[batch, 3, 16, 16]"),), (tensor("y", "float32[batch, 40]"),), DIMS)
WORDS = Signature((tensor("ids", "int64[batch, 6] 0..99"),), (tensor("y", "float32[batch, 32]"),), DIMS)


@dataclass(frozen=True, slots=True)
class Arrays:
    """Samples that lie in memory."""

    name: str
    feeds: tuple[dict[str, np.ndarray], ...]

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(self.feeds)


def pictures(n: int = 8) -> Arrays:
    random = np.random.default_rng(1)
    return Arrays(
        "noise", tuple({"x": random.normal(0, 1, (1, 3, 16, 16)).astype(np.float32)} for _ in range(n))
    )


def sentences(n: int = 8) -> Arrays:
    random = np.random.default_rng(2)
    return Arrays("ids", tuple({"ids": random.integers(0, 100, (1, 6))} for _ in range(n)))


def _normal(seed: int, *shape: int) -> np.ndarray:
    scale = (2 / np.prod(shape[1:])) ** 0.5
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def convnet(path: Path) -> Path:
    """Three convolutions with a residual sum, and a Gemm: float32[batch, 3, 16, 16] -> [batch, 40]."""
    weights = {
        "first.weight": _normal(1, 32, 3, 3, 3),
        "first.bias": _normal(2, 32),
        "second.weight": _normal(3, 32, 32, 3, 3),
        "third.weight": _normal(4, 32, 32, 3, 3),
        "third.bias": _normal(5, 32),
        "head.weight": _normal(6, 40, 32),
        "head.bias": _normal(7, 40),
    }
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "first.weight", "first.bias"], ["c1"], **conv),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "second.weight"], ["c2"], **conv),
        helper.make_node("Add", ["c2", "r1"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["r2"]),
        helper.make_node("Conv", ["r2", "third.weight", "third.bias"], ["c3"], **conv),
        helper.make_node("Relu", ["c3"], ["r3"]),
        helper.make_node("GlobalAveragePool", ["r3"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    ends = {"x": (FLOAT, ["batch", 3, 16, 16])}, {"y": (FLOAT, ["batch", 40])}
    return save(path, nodes, Tensors(*ends, weights))


def textnet(path: Path) -> Path:
    """A table, a MatMul, a product of two activations, a Gemm: int64[batch, 6] -> float32[batch, 32]."""
    weights = {
        "table": np.random.default_rng(8).normal(0, 1, (100, 64)).astype(np.float32),
        "inner.weight": _normal(9, 64, 64),
        "inner.bias": _normal(10, 64),
        "tiny": np.ones((4, 4), np.float32),
        "zero": np.array(0),
        "outer.weight": _normal(11, 32, 64),
        "axis": np.array([1]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "inner.weight"], ["product"]),
        helper.make_node("Add", ["product", "inner.bias"], ["hidden"]),
        helper.make_node("Transpose", ["hidden"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["hidden", "turned"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"]),
        helper.make_node("MatMul", ["shares", "hidden"], ["mixed"]),
        helper.make_node("ReduceMean", ["mixed", "axis"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "outer.weight"], ["y"], transB=1),
    ]
    ends = {"ids": (INT64, ["batch", 6])}, {"y": (FLOAT, ["batch", 32])}
    return save(path, nodes, Tensors(*ends, weights))


def beside(path: Path) -> Path:
    """Write a graph anew, as a build does: its weights in a file of their own."""
    model = load_graph(path)
    names = frozenset(name for name in model.graph.initializers if name not in {"axis", "zero"})
    move_out(model, path.with_name(weights_name(path)), names)
    write_model(model, path)
    assert external_names(load_graph(path))
    return path


def burdened(path: Path) -> Path:
    """Put a product of large matrices into a graph, of which nothing reaches the answer."""
    model = onnx.load(path)
    last, output = model.graph.node[-1], model.graph.node[-1].output[0]
    last.output[0] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 250), np.float32), "ones"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["before"], ["max"], keepdims=0),
            helper.make_node("Mul", ["max", "ones"], ["row"]),
            helper.make_node("Transpose", ["row"], ["column"], perm=[1, 0]),
            helper.make_node("MatMul", ["column", "row"], ["square"]),
            helper.make_node("MatMul", ["square", "square"], ["large"]),
            helper.make_node("ReduceMax", ["large"], ["much"], keepdims=0),
            helper.make_node("Sub", ["much", "much"], ["nothing"]),
            helper.make_node("Add", ["before", "nothing"], [output]),
        ]
    )
    onnx.save(model, path)
    return path


# ── how it is asked for ─────────────────────────────────────────────────────────────────────────────────
def equality(signature: Signature) -> Equality:
    plan = plan_cases(signature.inputs, signature.dims, SweepSettings(max_cases=4))
    return Equality(PartSpec("network", "fp32", signature.inputs, signature.outputs, signature.dims), plan)


def cosine(graph: Path, samples: Samples) -> UserMetric:
    """Return a metric: the mean cosine to what a graph answers."""
    session = open_session(graph)
    known = [(feeds, session.run(feeds)["y"].ravel()) for feeds in samples]
    session.close()

    def mean(run: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]) -> float:
        pairs = [(exact, run(feeds)["y"].ravel()) for feeds, exact in known]
        return float(np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]))

    return UserMetric("evaluate.py:cosine", mean, max_drop=0.02)


def request(method: str, signature: Signature, graph: Path, samples: Arrays) -> CompressRequest:
    """Return a request with quick measurements that keeps what is not faster."""
    metric = cosine(graph, samples)

    def check(session: Session) -> Evaluation:
        return metric.compare(1.0, metric.measure(session.run))

    return CompressRequest(
        method, equality(signature), check, samples, "size", ("all",), RaceSettings(budget_s=0.5)
    )


# ── quantizers that go wrong ────────────────────────────────────────────────────────────────────────────
def idle(
    graph: Path,
    method: Method,
    _samples: Samples | None,
    output: Path,
    _ranges: Mapping[str, Range] | None = None,
) -> Quantized:
    """Copy the graph, and claim to have done something."""
    found = quantize(graph, method, _samples, output, _ranges)
    onnx.save(onnx.load(graph), output)
    return replace(found, kept_float=())


def hoarding(
    graph: Path,
    method: Method,
    samples: Samples | None,
    output: Path,
    ranges: Mapping[str, Range] | None = None,
) -> Quantized:
    """Quantize, and leave the float weights in the file."""
    found = quantize(graph, method, samples, output, ranges)
    model = onnx.load(output)
    model.graph.initializer.extend(onnx.load(graph).graph.initializer)
    onnx.save(model, output)
    return found


def slow(
    graph: Path,
    method: Method,
    samples: Samples | None,
    output: Path,
    ranges: Mapping[str, Range] | None = None,
) -> Quantized:
    found = quantize(graph, method, samples, output, ranges)
    burdened(output)
    return found


def ruinous(
    graph: Path,
    method: Method,
    samples: Samples | None,
    output: Path,
    ranges: Mapping[str, Range] | None = None,
) -> Quantized:
    """Quantize, and turn the sign of the last layer's scales."""
    found = quantize(graph, method, samples, output, ranges)
    model = onnx.load(output)
    scale = next(w for w in model.graph.initializer if w.name in {"head.weight_scale", "outer.weight_scale"})
    scale.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(scale), scale.name))
    onnx.save(model, output)
    return found


def broken(
    graph: Path,
    method: Method,
    samples: Samples | None,
    output: Path,
    ranges: Mapping[str, Range] | None = None,
) -> Quantized:
    """Quantize, and name an operator that nobody has."""
    found = quantize(graph, method, samples, output, ranges)
    model = onnx.load(output)
    model.graph.node[-1].op_type = "Nothing"
    onnx.save(model, output)
    return found
