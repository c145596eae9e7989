"""Attention as one operator of ONNX Runtime: the scores of all pairs of tokens are never in memory at once.

``com.microsoft.MultiHeadAttention`` without mask or bias works through the scores in blocks (FlashAttention,
Dao et al. 2022). With 24 heads of 128 and 4160 tokens it takes 2.3 s of CPU time and 0.2 GB where the three
operators of ONNX take 3.8 s and 1.8 GB (bench/attention.py; AVX-512, one thread). With a mask ONNX Runtime
does not do so: such attention is left as it is. No other runtime has the operator, so that the graph stands
beside the plain one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from anyport.graph.ends import drop_unused
from anyport.graph.storing import check_file, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DOMAIN: Final = "com.microsoft"
_HEADS_LAST: Final = (0, 2, 1, 3)  # [batch, heads, tokens, size] <-> [batch, tokens, heads, size]
_KEYS_BACK: Final = (0, 3, 1, 2)  # [batch, heads, size, tokens] -> [batch, tokens, heads, size]
_N_AXES: Final = 4


@dataclass(frozen=True, slots=True)
class AttentionSite:
    """Attention without a mask: ``Softmax(query @ keys * scale) @ values``.

    Attributes:
        weights: Name of the value that the Softmax gives.
        n_heads: Of query, keys and values, which have the axes batch, heads, tokens, size.
        head_size: Of query and keys.
        value_size: Of values.
    """

    weights: str
    n_heads: int
    head_size: int
    value_size: int


@dataclass(frozen=True, slots=True)
class _Attention:
    """The values of one site, and the node whose output is replaced."""

    query: ir.Value
    keys: ir.Value
    values: ir.Value
    scale: float
    mixed: ir.Node


def find_attention(model: ir.Model) -> tuple[AttentionSite, ...]:
    """Find attention that can be one operator.

    Args:
        model: As an exporter made it: its inner values have shapes, which a stored graph lacks.
    """
    found = []
    for softmax, match in _matches(model):
        heads, query, values = _fixed(match.query, 1), _fixed(match.query, 3), _fixed(match.values, 3)
        if heads and query and values and heads == _fixed(match.values, 1):
            found.append(AttentionSite(softmax.outputs[0].name or "", heads, query, values))
    return tuple(found)


def fuse_attention(path: Path, sites: Sequence[AttentionSite], output: Path) -> int:
    """Write a graph again with its attention fused; its weights stay where they are.

    Args:
        path: The .onnx file.
        sites: From `find_attention`; those that the file no longer has are left out.
        output: The new file, in the same folder.

    Returns:
        How many sites were fused; of none nothing is written.
    """
    model = ir.load(str(path))  # as it is: 16-bit weights stay where they are, behind their Casts
    n_fused = fuse_sites(model, sites)
    if n_fused:
        write_model(model, output)
        check_file(output)
    return n_fused


def fuse_sites(model: ir.Model, sites: Sequence[AttentionSite]) -> int:
    """Fuse the attention of a graph in memory.

    Args:
        model: It is changed.
        sites: From `find_attention`; those that it no longer has are left out.

    Returns:
        How many sites were fused.
    """
    named = {site.weights: site for site in sites}
    found = [(named[name], match) for softmax, match in _matches(model) if (name := _name(softmax)) in named]
    for site, match in found:
        _fuse(model.graph, site, match)
    if found:
        model.opset_imports[DOMAIN] = 1
        RemoveUnusedNodesPass()(model)
        drop_unused(model)
    return len(found)


def _matches(model: ir.Model) -> Iterator[tuple[ir.Node, _Attention]]:
    for node in list(model.graph):
        if node.op_type == "Softmax" and (match := _match(node)) is not None:
            yield node, match


def _match(softmax: ir.Node) -> _Attention | None:
    mixed, scores = _only_reader(softmax.outputs[0]), _producer(softmax.inputs[0])
    axis = softmax.attributes["axis"].as_int() if "axis" in softmax.attributes else -1
    if mixed is None or not _is_inner(mixed, "MatMul") or axis not in {-1, _N_AXES - 1}:
        return None
    scale = 1.0
    if scores is not None and scores.op_type in {"Div", "Mul"} and _is_read_once(scores):
        factor = _number(scores.inputs[1]) or 0.0
        scale = factor if scores.op_type == "Mul" else 1 / (factor or np.inf)
        scores = _producer(scores.inputs[0])
    if not scale or scores is None or not _is_inner(scores, "MatMul") or not _is_read_once(scores):
        return None
    query, keys, values = scores.inputs[0], scores.inputs[1], mixed.inputs[1]
    if mixed.inputs[0] is not softmax.outputs[0] or query is None or keys is None or values is None:
        return None
    return _Attention(query, keys, values, scale, mixed)


def _fuse(graph: ir.Graph, site: AttentionSite, match: _Attention) -> None:
    """Put the operator in the place of the second product, and axes as it wants them around it."""
    prefix, before = f"{site.weights}_fused", match.mixed
    width, value_width = site.n_heads * site.head_size, site.n_heads * site.value_size
    inputs = [
        _flat(graph, before, (match.query, _HEADS_LAST), width, f"{prefix}_query"),
        _flat(graph, before, (match.keys, _KEYS_BACK), width, f"{prefix}_keys"),
        _flat(graph, before, (match.values, _HEADS_LAST), value_width, f"{prefix}_values"),
    ]
    words = {"num_heads": site.n_heads, "scale": match.scale}
    fused = _put(ir.node("MultiHeadAttention", inputs, words, domain=DOMAIN), before, prefix)
    shape = _shape(graph, (0, 0, site.n_heads, site.value_size))
    heads = _put(ir.node("Reshape", [fused, shape]), before, f"{prefix}_heads")
    back = _put(ir.node("Transpose", [heads], {"perm": _HEADS_LAST}), before, f"{prefix}_mixed")
    before.outputs[0].replace_all_uses_with(back, replace_graph_outputs=True)


def _flat(
    graph: ir.Graph, before: ir.Node, given: tuple[ir.Value, tuple[int, ...]], width: int, name: str
) -> ir.Value:
    """Return a value as float32[batch, tokens, heads * size]; runtimes drop transpositions that cancel."""
    value, perm = given
    turned = _put(ir.node("Transpose", [value], {"perm": perm}), before, f"{name}_turned")
    return _put(ir.node("Reshape", [turned, _shape(graph, (0, 0, width))]), before, name)


def _put(node: ir.Node, before: ir.Node, name: str) -> ir.Value:
    """Insert a node into the graph, and return what it gives."""
    node.name, node.outputs[0].name = f"{name}_node", name
    if before.graph is not None:
        before.graph.insert_before(before, node)
    return node.outputs[0]


def _shape(graph: ir.Graph, sizes: tuple[int, ...]) -> ir.Value:
    name = f"attention_shape_{'_'.join(map(str, sizes))}"
    if name not in graph.initializers:
        tensor = ir.tensor(np.array(sizes, np.int64), name=name)
        kind = ir.TensorType(ir.DataType.INT64)
        value = ir.Value(name=name, shape=ir.Shape([len(sizes)]), type=kind, const_value=tensor)
        graph.register_initializer(value)
    return graph.initializers[name]


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _is_inner(node: ir.Node, operator: str) -> bool:
    return node.op_type == operator and not node.outputs[0].is_graph_output()


def _is_read_once(node: ir.Node) -> bool:
    return _only_reader(node.outputs[0]) is not None


def _only_reader(value: ir.Value) -> ir.Node | None:
    readers = [node for node, _ in value.uses()]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def _name(node: ir.Node) -> str:
    return node.outputs[0].name or ""


def _number(value: ir.Value | None) -> float | None:
    constant = ir.convenience.get_const_tensor(value) if value is not None else None
    return float(constant.numpy().reshape(-1)[0]) if constant is not None and constant.size == 1 else None


def _fixed(value: ir.Value, axis: int) -> int | None:
    """Return the size of an axis of a value with four of them, if it is a number."""
    if value.shape is None or len(value.shape) != _N_AXES:
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None
