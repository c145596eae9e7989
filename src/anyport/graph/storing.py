"""Writing a graph: ``model.onnx``, and its weights as safetensors that serve as ONNX external data.

The weights file is plain safetensors with the module's own names, so that it can be opened, compared and
exchanged without onnx; ONNX Runtime maps the same bytes through ``location``, ``offset`` and ``length``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx.external_data_helper import _get_all_tensors, uses_external_data

from anyport import __version__
from anyport.bundle import TensorFileWriter, read_header, staged_files
from anyport.errors import ExportError, UsageError, require
from anyport.graph.narrow import narrow_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from anyport.graph.convert import Converted

Storage = Literal["as-is", "float32"]
MAX_INSIDE_BYTES: Final = 2_000_000_000  # protobuf ends at 2 GiB
SMALL_BYTES: Final = 1024  # shape constants stay in the graph: shape inference reads them there
_TYPE_NAMES: Final = {ir.DataType.DOUBLE: "float64", ir.DataType.FLOAT: "float32"}
_SAFETENSORS: Final = {
    ir.DataType.BFLOAT16: "BF16",
    ir.DataType.BOOL: "BOOL",
    ir.DataType.DOUBLE: "F64",
    ir.DataType.FLOAT: "F32",
    ir.DataType.FLOAT16: "F16",
    ir.DataType.INT16: "I16",
    ir.DataType.INT32: "I32",
    ir.DataType.INT64: "I64",
    ir.DataType.INT8: "I8",
    ir.DataType.UINT8: "U8",
}


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a graph is written.

    Attributes:
        weights: ``inside`` the .onnx file, ``beside`` it as safetensors, or ``auto``: inside if the file
            stays under `MAX_INSIDE_BYTES`.
        metadata: Written to the graph's ``metadata_props``.
        storage: ``as-is``: weights that came from 16 bits are stored in 16 bits; ``float32``: widened.
    """

    weights: Literal["auto", "beside", "inside"] = "beside"
    metadata: Mapping[str, str] = field(default_factory=dict)
    storage: Storage = "as-is"


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph on disk.

    Attributes:
        path: The .onnx file.
        weights: The safetensors file beside it; ``None`` if the weights are inside.
        opset: Of the default domain.
        operators: Operator -> number of nodes, sorted by name.
        n_parameters: Number of elements in the initializers.
        stored: Type -> bytes of the initializers, sorted by name.
        warnings: What the graph will not do that the module does.
    """

    path: Path
    weights: Path | None
    opset: int
    operators: Mapping[str, int]
    n_parameters: int
    stored: Mapping[str, int]
    warnings: tuple[str, ...] = ()

    @property
    def n_nodes(self) -> int:
        """How many nodes the graph has."""
        return sum(self.operators.values())


def store(converted: Converted, path: Path, options: StoreOptions) -> Graph:
    """Write a converted graph and check the file.

    Args:
        converted: Its initializers are read one by one, never all at once.
        path: Of the .onnx file; weights beside it are called like it, with ``.safetensors``
            (``weights.safetensors`` for a ``model.onnx``).
        options: How it is written.

    Raises:
        ExportError: The file is not valid ONNX.
        OSError: The disk is full or may not be written.
    """
    model = converted.model
    model.producer_name = "anyport"
    model.producer_version = __version__
    model.metadata_props.update(options.metadata)
    if options.storage == "as-is":
        narrow_weights(model)
    total_bytes = sum(count_stored(model).values())
    beside = options.weights == "beside" or (options.weights == "auto" and total_bytes > MAX_INSIDE_BYTES)
    weights = path.with_name(weights_name(path)) if beside else None
    if weights is not None:
        move_out(model, weights, converted.weight_names)
    write_model(model, path)
    check_file(path)
    return described(model, path, weights)


def read_graph(path: Path) -> Graph:
    """Describe a graph that lies on the disk."""
    model = ir.load(path)
    weights = path.with_name(weights_name(path))
    return described(model, path, weights if weights.is_file() else None)


def described(model: ir.Model, path: Path, weights: Path | None) -> Graph:
    """Describe a graph that was written."""
    return Graph(
        path,
        weights,
        model.opset_imports[""],
        count_operators(model),
        count_parameters(model),
        count_stored(model),
    )


def move_graph(made: Path, output: Path) -> None:
    """Move a graph and its weights, the graph last; both have the names of the output already."""
    for name in (weights_name(output), output.name):
        if (made.parent / name).is_file():
            (made.parent / name).replace(output.parent / name)


def weights_name(path: Path) -> str:
    """Return the name of the weights file that belongs to an .onnx file."""
    return "weights.safetensors" if path.name == "model.onnx" else f"{path.stem}.safetensors"


@contextmanager
def staged_graph(graph: Path, output: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a folder; when the block ends well, the .onnx file and the weights made in it become the output.

    With ``force``, weights of the output that is replaced go with it, if the new one has none beside it.

    Args:
        graph: What the output is made of; none of its files is replaced.
        output: The .onnx file.
        force: Replace files that exist.

    Raises:
        BundleError: The disk is full or cannot be written.
        UsageError: The output exists; or it would replace a file that ``graph`` needs.
    """
    weights = output.with_name(weights_name(output))
    _check_apart(graph, (output, weights))
    is_stale = force and weights.is_file() and output.is_file() and _needs(output, weights)
    with staged_files((output, weights), force=force) as staged:
        yield staged
        is_stale = is_stale and not (staged / weights.name).is_file()
    if is_stale:
        weights.unlink()


def _check_apart(graph: Path, outputs: tuple[Path, ...]) -> None:
    for output in outputs:
        if output.exists() and _needs(graph, output):
            raise UsageError(
                f"'{output.name}' would be replaced, and '{graph.name}' needs it",
                where=str(output),
                do="give the output another name, or write it into another folder",
            )


def _needs(graph: Path, file: Path) -> bool:
    """Say whether a file is this graph's own, or has weights of it."""
    return any(needed.exists() and needed.samefile(file) for needed in files_of(graph))


def files_of(path: Path) -> frozenset[Path]:
    """Return a file and, if it is an .onnx file, those that its tensors lie in, which may not be there."""
    damage = require("google.protobuf.message", extra="optimize", step="reading an .onnx file").DecodeError
    try:
        model = onnx.load(str(path), load_external_data=False)
    except damage:
        return frozenset({path})
    outside = [tensor for tensor in _get_all_tensors(model) if uses_external_data(tensor)]
    entries = [entry for tensor in outside for entry in tensor.external_data if entry.key == "location"]
    return frozenset({path, *(path.parent / entry.value for entry in entries)})


def check_file(path: Path, proto: onnx.ModelProto | None = None) -> None:
    """Run onnx's checker on a file.

    Args:
        path: The file.
        proto: What of it is checked; all of it by default.

    Raises:
        ExportError: It finds something.
    """
    try:
        onnx.checker.check_model(str(path) if proto is None else proto)
    except onnx.checker.ValidationError as err:
        raise ExportError(
            f"{path.name} is not valid ONNX: {str(err).strip().splitlines()[0]}",
            do="please report this with the model: anyport wrote the file",
        ) from err


def count_operators(model: ir.Model) -> dict[str, int]:
    """Return operator -> number of nodes, sorted by name; those of inner graphs count too."""
    return dict(sorted(Counter(_operator(node) for node in model.graph.all_nodes()).items()))


def count_parameters(model: ir.Model) -> int:
    """Return the number of elements in the initializers."""
    return sum(tensor.size for tensor in _tensors(model))


def count_stored(model: ir.Model) -> dict[str, int]:
    """Return type -> bytes of the initializers in the file, sorted by type: ``{"bfloat16": 10}``."""
    sizes: Counter[str] = Counter()
    for tensor in _tensors(model):
        sizes[_TYPE_NAMES.get(tensor.dtype, tensor.dtype.name.lower())] += tensor.nbytes
    return dict(sorted(sizes.items()))


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return [tensor for tensor in tensors if tensor is not None]


def _operator(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def move_out(model: ir.Model, weights: Path, weight_names: frozenset[str]) -> None:
    """Write the large initializers to a safetensors file and point the graph at it.

    Args:
        model: Its initializers are read one by one, and point into the file afterwards.
        weights: The file, in the folder that the graph will be in.
        weight_names: Initializers that are moved however small they are.
    """
    outside = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and (name in weight_names or value.const_value.nbytes >= SMALL_BYTES)
    }
    write_out(model, weights, outside, _same_content(outside))


def write_out(
    model: ir.Model, weights: Path, outside: Mapping[str, ir.TensorProtocol], stored_as: Mapping[str, str]
) -> None:
    """Write tensors to a safetensors file and point the graph at it.

    Args:
        model: Its initializers point into the file afterwards.
        weights: The file, in the folder that the graph will be in.
        outside: Initializer -> what is written, read one by one.
        stored_as: Initializer -> the name that it has in the file; equal tensors may share one.
    """
    order = sorted(set(stored_as.values()), key=lambda name: (-outside[name].dtype.itemsize, name))
    entries = [
        (name, _SAFETENSORS[outside[name].dtype], tuple(int(n) for n in outside[name].shape.numpy()))
        for name in order
    ]
    with TensorFileWriter(weights, entries) as writer:
        for name in order:
            writer.write(name, outside[name].numpy())
    header = read_header(weights)
    for name, tensor in outside.items():
        entry = header[stored_as[name]]
        model.graph.initializers[name].const_value = ir.ExternalTensor(
            weights.name,
            entry.offset,
            entry.size_bytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
            base_dir=weights.parent,
        )


def _same_content(tensors: Mapping[str, ir.TensorProtocol]) -> dict[str, str]:
    """Return name -> the name it is stored under: tied weights are stored once."""
    first: dict[tuple[Any, ...], str] = {}
    stored_as: dict[str, str] = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        array: np.ndarray = tensor.numpy()
        digest = (
            hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).digest()
            if array.size
            else b""
        )
        key = (tensor.dtype, tuple(array.shape), digest)
        stored_as[name] = first.setdefault(key, name)
    return stored_as


def write_model(model: ir.Model, path: Path, *, with_shapes: bool = False) -> None:
    """Write an .onnx file: the same model gives the same bytes.

    Args:
        model: What is written.
        path: Of the file.
        with_shapes: Keep the shapes of inner values. Those of an exporter speak of symbols that no longer
            exist; those of a simplifier let onnxruntime fuse sums of dynamic size (6 % of a RegNet).
    """
    proto = ir.serde.serialize_model(model)
    # those of initializers stop onnxruntime's quantizer
    inner = [one for one in proto.graph.value_info if one.name not in model.graph.initializers]
    del proto.graph.value_info[:]
    if with_shapes:
        proto.graph.value_info.extend(inner)
    path.write_bytes(proto.SerializeToString(deterministic=True))
