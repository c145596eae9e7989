"""What an .onnx file holds, read without its weights; needs ``anyport[optimize]``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

from anyport.errors import InputError, require
from anyport.runtime.graphfile import read_graph

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_ONNX_NAMES: Final = {"DOUBLE": "float64", "FLOAT": "float32"}


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """The contents of an .onnx file.

    Attributes:
        inputs: Name -> notation, such as ``float32[batch, 3, 224, 224]``.
        outputs: Name -> notation.
        opsets: Operator domain -> version; the default domain is ``ai.onnx``.
        ir_version: Version of the file format.
        producer: Program that wrote it, with its version.
        metadata: The file's own key-value pairs.
        n_nodes: Number of nodes, those inside branches, loops and functions included.
        operators: Operator -> number of nodes, the most frequent first.
        n_parameters: Number of elements in the initializers.
        stored: Type -> bytes of the initializers.
        size_bytes: Size of the file.
        weights_files: External files that the initializers name -> the bytes they use of them.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    opsets: Mapping[str, int]
    ir_version: int
    producer: str
    metadata: Mapping[str, str]
    n_nodes: int
    operators: Mapping[str, int]
    n_parameters: int
    stored: Mapping[str, int]
    size_bytes: int
    weights_files: Mapping[str, int]


def inspect_onnx(path: Path) -> OnnxFile:
    """Read everything but the weights.

    Raises:
        InputError: It is missing, or no .onnx file.
        MissingExtraError: The package onnx is not installed.
    """
    model = _load(path)
    graph = model.graph
    operators = Counter(_operator(node) for node in _nodes(model))
    initializers = list(graph.initializer)
    own = {tensor.name for tensor in initializers}
    return OnnxFile(
        inputs={value.name: _notation(value) for value in graph.input if value.name not in own},
        outputs={value.name: _notation(value) for value in graph.output},
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        n_nodes=operators.total(),
        operators=dict(sorted(operators.items(), key=lambda entry: (-entry[1], entry[0]))),
        n_parameters=sum(prod(tensor.dims) for tensor in initializers),
        stored=_stored(path),
        size_bytes=path.stat().st_size,
        weights_files=_external_sizes(initializers),
    )


def _stored(path: Path) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for tensor in read_graph(path).graph.initializers:
        sizes[tensor.dtype] += tensor.size_bytes
    return dict(sorted(sizes.items()))


def _load(path: Path) -> Any:
    onnx = require("onnx", extra="optimize", step="reading an .onnx file")
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    damage = require("google.protobuf.message", extra="optimize", step="reading an .onnx file").DecodeError
    try:
        model = onnx.load(str(path), load_external_data=False)
    except damage as err:
        raise InputError(f"{path} is no .onnx file, or it is cut off") from err
    if not model.HasField("graph"):
        raise InputError(f"{path} is no .onnx file: there is no graph in it")
    return model


def _nodes(model: Any) -> Iterator[Any]:
    waiting = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            yield node
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _operator(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in {"", "ai.onnx"} else node.op_type


def _notation(value: Any) -> str:
    """Return the notation of anyport for a tensor; other kinds by their ONNX name."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return str(kind).removesuffix("_type")
    onnx = require("onnx", extra="optimize", step="reading an .onnx file")
    name = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    axes = ", ".join(
        axis.dim_param or (str(axis.dim_value) if axis.HasField("dim_value") else "?")
        for axis in value.type.tensor_type.shape.dim
    )
    return f"{_ONNX_NAMES.get(name, name.lower())}[{axes}]"


def _external_sizes(initializers: Iterable[Any]) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for tensor in initializers:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if "location" in place:
            sizes[place["location"]] += int(place.get("length", 0))
    return dict(sorted(sizes.items()))
