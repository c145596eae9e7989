"""The graph of an .onnx file, read without the package onnx: nodes, names, types and sizes, no weights.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from anyport.runtime.wire import LENGTH, Span, fields, signed, text, varints

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from anyport.runtime.wire import Field

_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_FUNCTIONS = 7, 8, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_FUNCTION_NODE: Final = 7
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR = 1, 3, 5
_ATTRIBUTE_GRAPHS: Final = frozenset({6, 11})
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_INTS, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_OUTSIDE = 1, 2, 5, 8, 9, 13
_MAX_DEPTH: Final = 50  # graphs in graphs
_MAX_KEPT_BYTES: Final = 10  # of a tensor: a flag or one number; a negative one is that long

# onnx.TensorProto.DataType -> name and bits
DTYPES: Final[Mapping[int, tuple[str, int]]] = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    12: ("uint32", 32),
    13: ("uint64", 64),
    16: ("bfloat16", 16),
    17: ("float8e4m3fn", 8),
    18: ("float8e4m3fnuz", 8),
    19: ("float8e5m2", 8),
    20: ("float8e5m2fnuz", 8),
    21: ("uint4", 4),
    22: ("int4", 4),
    23: ("float4e2m1", 4),
}


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """A constant tensor.

    Attributes:
        name: Of the initializer; empty for the value of a node ``Constant``.
        dtype: Its type, such as ``int8``.
        shape: Its sizes.
        size_bytes: Of its elements, wherever they are kept.
        value: Its number, if it has one element, is whole or a truth, and is kept in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    value: int | None = None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node; ``graphs`` are the bodies of its branches or loop."""

    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: Mapping[str, int] = field(default_factory=dict)
    constant: TensorFacts | None = None
    graphs: tuple[GraphFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class ValueFacts:
    """An input or output: its axes are numbers, names, or ``None`` where the file says nothing."""

    name: str
    dtype: str
    axes: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """A graph, or the body of a branch, a loop or a function."""

    inputs: tuple[ValueFacts, ...]
    outputs: tuple[ValueFacts, ...]
    initializers: tuple[TensorFacts, ...]
    nodes: tuple[NodeFacts, ...]

    def walk(self) -> Iterator[GraphFacts]:
        """Yield this graph and those inside its nodes."""
        yield self
        for node in self.nodes:
            for inner in node.graphs:
                yield from inner.walk()

    def all_nodes(self) -> Iterator[NodeFacts]:
        """Yield the nodes of this graph and of those inside."""
        for graph in self.walk():
            yield from graph.nodes


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What an .onnx file computes.

    Attributes:
        graph: The graph.
        functions: The bodies of the file's own functions.
        opsets: Domain -> version; the default domain is ``""``.
    """

    graph: GraphFacts
    functions: tuple[GraphFacts, ...]
    opsets: Mapping[str, int]

    def all_nodes(self) -> Iterator[NodeFacts]:
        """Yield every node of the file."""
        for graph in (self.graph, *self.functions):
            yield from graph.all_nodes()

    def weights(self) -> Iterator[TensorFacts]:
        """Yield every constant tensor of the file."""
        for graph in (self.graph, *self.functions):
            for inner in graph.walk():
                yield from inner.initializers
                yield from (node.constant for node in inner.nodes if node.constant is not None)


def read_graph(path: Path) -> ModelFacts:
    """Read what a file computes.

    Raises:
        ValueError: The file is no .onnx file, or is cut off.
    """
    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _model(content)


def _model(content: mmap.mmap) -> ModelFacts:
    graph: GraphFacts | None = None
    functions: list[GraphFacts] = []
    opsets: dict[str, int] = {}
    for one in fields(content, (0, len(content))):
        if one.wire_type != LENGTH:
            continue
        if one.number == _MODEL_GRAPH:
            graph = _graph(content, one.span, 0)
        elif one.number == _MODEL_FUNCTIONS:
            functions.append(_function(content, one.span))
        elif one.number == _MODEL_OPSETS:
            domain, version = _opset(content, one.span)
            opsets[domain] = version
    if graph is None:
        raise ValueError("it holds no graph")
    return ModelFacts(graph, tuple(functions), opsets)


def _opset(content: mmap.mmap, span: Span) -> tuple[str, int]:
    domain, version = "", 0
    for one in fields(content, span):
        if one.number == 1:
            domain = text(content, one)
        else:
            version = signed(one.value)
    return domain, version


def _function(content: mmap.mmap, span: Span) -> GraphFacts:
    nodes = [_node(content, one.span, 0) for one in fields(content, span) if one.number == _FUNCTION_NODE]
    return GraphFacts((), (), (), tuple(nodes))


def _graph(content: mmap.mmap, span: Span, depth: int) -> GraphFacts:
    if depth > _MAX_DEPTH:
        raise ValueError(f"it has graphs in graphs, more than {_MAX_DEPTH} deep")
    inputs: list[ValueFacts] = []
    outputs: list[ValueFacts] = []
    initializers: list[TensorFacts] = []
    nodes: list[NodeFacts] = []
    for one in fields(content, span):
        if one.number == _GRAPH_NODE:
            nodes.append(_node(content, one.span, depth))
        elif one.number == _GRAPH_INITIALIZER:
            initializers.append(_tensor(content, one.span))
        elif one.number == _GRAPH_INPUT:
            inputs.append(_value(content, one.span))
        elif one.number == _GRAPH_OUTPUT:
            outputs.append(_value(content, one.span))
    return GraphFacts(tuple(inputs), tuple(outputs), tuple(initializers), tuple(nodes))


def _node(content: mmap.mmap, span: Span, depth: int) -> NodeFacts:
    words: dict[int, list[str]] = {}
    integers: dict[str, int] = {}
    constant: TensorFacts | None = None
    graphs: list[GraphFacts] = []
    for one in fields(content, span):
        if one.number == _NODE_ATTRIBUTE:
            name, found, tensor, inner = _attribute(content, one.span, depth)
            integers |= {name: found} if found is not None else {}
            constant = tensor if name == "value" and tensor is not None else constant
            graphs += inner
        elif one.number in {_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_TYPE, _NODE_DOMAIN}:
            words.setdefault(one.number, []).append(text(content, one))
    return NodeFacts(
        name=_one(words, _NODE_NAME),
        operator=_one(words, _NODE_TYPE),
        domain=_one(words, _NODE_DOMAIN),
        inputs=tuple(words.get(_NODE_INPUT, ())),
        outputs=tuple(words.get(_NODE_OUTPUT, ())),
        integers=integers,
        constant=constant,
        graphs=tuple(graphs),
    )


def _one(words: Mapping[int, list[str]], number: int) -> str:
    return words.get(number, [""])[-1]


def _attribute(
    content: mmap.mmap, span: Span, depth: int
) -> tuple[str, int | None, TensorFacts | None, list[GraphFacts]]:
    name, integer, tensor = "", None, None
    graphs: list[GraphFacts] = []
    for one in fields(content, span):
        if one.number == _ATTRIBUTE_NAME:
            name = text(content, one)
        elif one.number == _ATTRIBUTE_INT:
            integer = signed(one.value)
        elif one.number == _ATTRIBUTE_TENSOR:
            tensor = _tensor(content, one.span)
        elif one.number in _ATTRIBUTE_GRAPHS and one.wire_type == LENGTH:
            graphs.append(_graph(content, one.span, depth + 1))
    return name, integer, tensor, graphs


def _tensor(content: mmap.mmap, span: Span) -> TensorFacts:
    name, kind = "", 0
    shape: list[int] = []
    value: int | None = None
    for one in fields(content, span):
        if one.number == _TENSOR_NAME:
            name = text(content, one)
        elif one.number == _TENSOR_TYPE:
            kind = one.value
        elif one.number == _TENSOR_DIMS:
            shape += varints(content, one)
        elif one.number in {_TENSOR_INTS, 7, _TENSOR_RAW}:
            value = _number(content, one)
        elif one.number == _TENSOR_OUTSIDE:
            value = None
    dtype, bits = DTYPES.get(kind, (f"type {kind}", 0))
    n_elements = 1
    for size in shape:
        n_elements *= max(size, 0)
    is_whole = dtype == "bool" or "int" in dtype
    return TensorFacts(
        name, dtype, tuple(shape), -(-n_elements * bits // 8), value if is_whole and n_elements == 1 else None
    )


def _number(content: mmap.mmap, one: Field) -> int | None:
    start, end = one.span
    if end - start > _MAX_KEPT_BYTES:
        return None
    if one.number == _TENSOR_RAW:
        return int.from_bytes(content[start:end], "little", signed=True)
    return next(iter(varints(content, one)), None)


def _value(content: mmap.mmap, span: Span) -> ValueFacts:
    """Read a ValueInfoProto: name 1, type 2 -> tensor_type 1 -> elem_type 1, shape 2 -> dim 1."""
    name, kind = "", 0
    axes: list[int | str | None] = []
    for one in fields(content, span):
        if one.number == 1:
            name = text(content, one)
        elif one.number == 2:  # noqa: PLR2004 -- the field's number, as above
            for tensor in _inner(content, one.span, 1):
                kind = next((f.value for f in fields(content, tensor) if f.number == 1), 0)
                axes += [
                    _axis(content, dim)
                    for shape in _inner(content, tensor, 2)
                    for dim in _inner(content, shape, 1)
                ]
    return ValueFacts(name, DTYPES.get(kind, (f"type {kind}", 0))[0], tuple(axes))


def _inner(content: mmap.mmap, span: Span, number: int) -> list[Span]:
    return [f.span for f in fields(content, span) if f.number == number and f.wire_type == LENGTH]


def _axis(content: mmap.mmap, span: Span) -> int | str | None:
    """Read a dimension: a number in field 1, or a name in field 2."""
    for one in fields(content, span):
        if one.number == 1:
            return signed(one.value)
        if one.number == 2:  # noqa: PLR2004 -- the field's number, as above
            return text(content, one) or None
    return None
