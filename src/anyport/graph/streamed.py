"""Export of a model that no memory would hold: the graph first, without weights; then its weights, or none.

Memory: the graph, and while weights are copied the largest of them. Two ways to store them:

``reference``
    Nothing but the graph is written, and which files it refers to. Each weight is named by file, offset and
    length in the checkpoint, which stays where it is and as it is; 16-bit weights are cast when the graph
    runs. Only ONNX Runtime opens such a graph (`anyport.runtime.shards`).
``copy``
    The weights are streamed into a safetensors file beside the graph, transposed where the graph would do so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import onnx
import onnx_ir as ir

from anyport import __version__
from anyport.bundle.shards import record_shards, shards_text
from anyport.bundle.tensorfile import DTYPES
from anyport.errors import ExportError, UsageError
from anyport.graph.attention import DOMAIN, find_attention, fuse_sites
from anyport.graph.capture import capture
from anyport.graph.convert import DEFAULT_OPSET, convert
from anyport.graph.hollow import hollow
from anyport.graph.narrow import TYPES, Widened, store_narrow
from anyport.graph.storing import (
    MAX_INSIDE_BYTES,
    SMALL_BYTES,
    Storage,
    check_file,
    described,
    weights_name,
    write_model,
    write_out,
)
from anyport.graph.weightnames import rename
from anyport.runtime.shards import SHARDS
from anyport.source.checkpoint import check_against, wanted_weights
from anyport.source.streaming import weights_inside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from anyport.graph.convert import Converted
    from anyport.graph.storing import Graph
    from anyport.recipe import Part
    from anyport.source.checkpoint import Checkpoint, StoredTensor
    from anyport.source.merging import LazyWeight

StreamedWeights = Literal["copy", "reference"]

_MATRIX: Final = 2
_IR_TYPES: Final[Mapping[str, ir.DataType]] = {
    "BF16": ir.DataType.BFLOAT16,
    "BOOL": ir.DataType.BOOL,
    "F16": ir.DataType.FLOAT16,
    "F32": ir.DataType.FLOAT,
    "F64": ir.DataType.DOUBLE,
    "I16": ir.DataType.INT16,
    "I32": ir.DataType.INT32,
    "I64": ir.DataType.INT64,
    "I8": ir.DataType.INT8,
    "U8": ir.DataType.UINT8,
}


@dataclass(frozen=True, slots=True)
class StreamSource:
    """Where a part's weights come from.

    Attributes:
        home: The part's module, or the one inside it that the checkpoint is of; on the meta device, or with
            weights that are not used.
        checkpoint: Its weights.
        merged: Name in ``home`` -> how it is read, for weights that are not those of the checkpoint:
            adapters are merged into them.
    """

    home: nn.Module
    checkpoint: Checkpoint
    merged: Mapping[str, LazyWeight] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a part is exported.

    Attributes:
        weights: ``reference`` or ``copy``.
        opset: That is written.
        storage: Of a copy, as for `anyport.graph.storing.StoreOptions`.
        metadata: Written to the graph's ``metadata_props``.
    """

    weights: StreamedWeights = "reference"
    opset: int = DEFAULT_OPSET
    storage: Storage = "as-is"
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Translated:
    """A part as a graph without weights, and where these are.

    Attributes:
        converted: The graph; its weights have shapes and no numbers.
        stored: Initializer -> where its numbers lie. Weights that the graph does not need are not here.
        root: A folder that all files of the checkpoint are below.
        merged: Initializer -> how it is read, for those of which the checkpoint has other numbers.
        warnings: Of the export.
    """

    converted: Converted
    stored: Mapping[str, StoredTensor]
    root: Path
    merged: Mapping[str, LazyWeight] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def stream_export(part: Part, source: StreamSource, path: Path, options: StreamOptions) -> Graph:
    """Export a part without its weights, and write it.

    Args:
        part: Its module is changed, and cannot be run afterwards.
        source: Of its weights.
        path: Of the .onnx file.
        options: How.

    Raises:
        SourceError: The checkpoint does not fit the module.
        ExportError: The part cannot be exported, or its weights not be stored in this way.
        OSError: The disk is full.
    """
    return store_streamed(translate_part(part, source, options.opset), path, options)


def translate_part(part: Part, source: StreamSource, opset: int = DEFAULT_OPSET) -> Translated:
    """Export a part without its weights.

    Raises:
        SourceError: The checkpoint does not fit the module.
        ExportError: The part cannot be exported.
    """
    found = check_against(source.checkpoint, wanted_weights(source.home))
    own = weights_inside(part.module, source.home, source.merged)
    emptied = hollow(part, source.home, found)
    captured = capture(emptied.part)
    converted = convert(captured, emptied.part, opset)
    names = [name for name in converted.model.graph.initializers if name in emptied.stored]
    stored = {name: emptied.stored[name] for name in names}
    merged = {name: own[name] for name in names if name in own and own[name].is_merged}
    return Translated(converted, stored, source.checkpoint.root, merged, tuple(captured.warnings))


def store_streamed(translated: Translated, path: Path, options: StreamOptions) -> Graph:
    """Write a graph, and its weights if they are copied.

    Args:
        translated: Is changed, and of no use afterwards.
        path: Of the .onnx file; weights are called as `anyport.graph.storing.weights_name` says.
        options: How.

    Raises:
        ExportError: The weights cannot be stored in this way.
        OSError: The disk is full.
    """
    model = translated.converted.model
    model.producer_name, model.producer_version = "anyport", __version__
    model.metadata_props.update(options.metadata)
    store = _refer if options.weights == "reference" else _copy
    return store(translated, path, options)


# ── reference ───────────────────────────────────────────────────────────────────────────────────────────
def _refer(translated: Translated, path: Path, options: StreamOptions) -> Graph:  # noqa: ARG001 -- as _copy
    model = translated.converted.model
    if translated.merged:
        raise UsageError(
            f"{len(translated.merged)} weights are changed by a LoRA, and a reference changes nothing",
            do="--weights copy, or StreamOptions('copy'), merges it",
        )
    fuse_sites(model, find_attention(model))  # no other runtime opens such a graph
    for name, stored in translated.stored.items():
        value = model.graph.initializers[name]
        external = _external(stored, value, translated.root)
        value.const_value = Widened(external) if external.dtype in TYPES else external
    _multiply_as_stored(model, set(translated.stored))
    store_narrow(model, _narrow_types(translated))
    _check_inside(model)
    files = {stored.file for stored in translated.stored.values()}
    model.metadata_props[SHARDS] = shards_text(record_shards(translated.root, files))
    for name, stored in translated.stored.items():
        _name_as_stored(model, model.graph.initializers[name], stored)
    write_model(model, path)
    check_without_weights(path)
    return described(model, path, None)


def _external(stored: StoredTensor, value: ir.Value, root: Path) -> ir.ExternalTensor:
    """Return a tensor in the checkpoint; it is written, and never read."""
    dtype = _IR_TYPES.get(stored.dtype)
    if dtype is None or (dtype != value.dtype and not (dtype in TYPES and value.dtype == ir.DataType.FLOAT)):
        raise ExportError(
            f"'{stored.name}' is stored in {stored.dtype}, and the graph computes with it as {value.dtype}",
            where=stored.file.name,
            do="--weights copy, or StreamOptions('copy'), converts it",
        )
    return ir.ExternalTensor(
        stored.file.relative_to(root).as_posix(),
        stored.offset,
        stored.n_bytes,
        dtype,
        shape=ir.Shape(stored.shape),
        name=str(value.name),
        base_dir=root,
    )


def _narrow_types(translated: Translated) -> dict[str, ir.DataType]:
    graph = translated.converted.model.graph
    types = {name: _IR_TYPES[stored.dtype] for name, stored in translated.stored.items()}
    return {n: t for n, t in types.items() if t in TYPES and graph.initializers[n].dtype == ir.DataType.FLOAT}


def _multiply_as_stored(model: ir.Model, weights: set[str]) -> None:
    """Let products read a weight in the layout of the checkpoint, where the graph would transpose it."""
    for transpose in _transposes(model.graph, weights):
        for reader, place in list(transpose.outputs[0].uses()):
            if reader.op_type == "MatMul" and not reader.domain and place == 1:
                _fuse_product(model.graph, reader, transpose)
        if not transpose.outputs[0].uses() and not transpose.outputs[0].is_graph_output():
            model.graph.remove(transpose, safe=True)
    if any(node.domain == DOMAIN for node in model.graph):
        model.opset_imports[DOMAIN] = 1


def _transposes(graph: ir.Graph, weights: set[str]) -> list[ir.Node]:
    """Return the nodes that swap the two axes of a weight."""
    return [
        node
        for node in graph
        if node.op_type == "Transpose"
        and not node.domain
        and (weight := node.inputs[0]) is not None
        and weight.name in weights
        and weight.is_initializer()
        and weight.shape is not None
        and len(weight.shape) == _MATRIX
        and ("perm" not in node.attributes or list(node.attributes["perm"].as_ints()) == [1, 0])
    ]


def _fuse_product(graph: ir.Graph, product: ir.Node, transpose: ir.Node) -> None:
    inputs, old = [product.inputs[0], transpose.inputs[0]], product.outputs[0]
    new = ir.Value(name=old.name, shape=old.shape, type=old.type)
    fused = ir.node("FusedMatMul", inputs, {"transB": 1}, domain=DOMAIN, outputs=[new], name=product.name)
    graph.insert_before(product, fused)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(product, safe=True)


def _check_inside(model: ir.Model) -> None:
    """Refuse constants that do not fit into the file: a session reads weights from one folder alone."""
    inside = {
        name: value.const_value.nbytes
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and not isinstance(value.const_value, ir.ExternalTensor)
    }
    if sum(inside.values()) > MAX_INSIDE_BYTES:
        largest = max(inside, key=inside.__getitem__)
        raise ExportError(
            f"the model computes {sum(inside.values())} bytes of constants itself, such as '{largest}', and "
            f"a graph that refers to a checkpoint holds {MAX_INSIDE_BYTES}",
            do="--weights copy, or StreamOptions('copy')",
        )


def _name_as_stored(model: ir.Model, value: ir.Value, stored: StoredTensor) -> None:
    """Call a weight as the checkpoint does: so anybody can look it up there."""
    if stored.name != value.name and stored.name not in model.graph.initializers:
        rename(model, value, stored.name)


def check_without_weights(path: Path) -> None:
    """Run onnx's checker on a file, with its external weights as inputs: they lie where it does not look.

    Raises:
        ExportError: It finds something.
    """
    proto = onnx.load(str(path), load_external_data=False)
    external = [one for one in proto.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    inside = [one for one in proto.graph.initializer if one.data_location != onnx.TensorProto.EXTERNAL]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(inside)
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in external
    )
    check_file(path, proto)


# ── copy ────────────────────────────────────────────────────────────────────────────────────────────────
def _copy(translated: Translated, path: Path, options: StreamOptions) -> Graph:
    model = translated.converted.model
    turned = _fold_transposes(model, set(translated.stored))
    for name, stored in translated.stored.items():
        value = model.graph.initializers[name]
        if name in translated.merged:
            value.const_value = _made(translated.merged[name], name, is_turned=name in turned)
        else:
            value.const_value = _lazy(stored, value, is_turned=name in turned)
    if options.storage == "as-is":
        types = _narrow_types(translated)
        store_narrow(model, {name: dtype for name, dtype in types.items() if name not in translated.merged})
    tensors = {n: v.const_value for n, v in model.graph.initializers.items() if v.const_value is not None}
    outside = {n: t for n, t in tensors.items() if n in translated.stored or t.nbytes >= SMALL_BYTES}
    weights = path.with_name(weights_name(path))
    write_out(model, weights, outside, {name: name for name in outside})
    write_model(model, path)
    check_file(path)
    return described(model, path, weights)


def _fold_transposes(model: ir.Model, weights: set[str]) -> set[str]:
    """Take out the nodes that swap the axes of a weight that nobody reads otherwise; return these weights."""
    turned = set()
    for transpose in _transposes(model.graph, weights):
        weight, output = transpose.inputs[0], transpose.outputs[0]
        if weight is None or weight.shape is None or output.is_graph_output() or len(weight.uses()) > 1:
            continue
        weight.shape = ir.Shape(list(reversed(weight.shape.dims)))
        output.replace_all_uses_with(weight)
        model.graph.remove(transpose, safe=True)
        turned.add(str(weight.name))
    return turned


def _lazy(stored: StoredTensor, value: ir.Value, *, is_turned: bool) -> ir.TensorProtocol:
    """Return a tensor that is read from the checkpoint when it is written, as the graph computes with it."""
    dtype, shape = _IR_TYPES[stored.dtype], stored.shape[::-1] if is_turned else stored.shape
    tensor = ir.LazyTensor(partial(_read, stored, is_turned), dtype, ir.Shape(shape), name=str(value.name))
    if dtype == value.dtype or value.dtype is None:
        return tensor
    if dtype in TYPES and value.dtype == ir.DataType.FLOAT:
        return Widened(tensor)
    return ir.LazyTensor(partial(_cast, tensor, value.dtype), value.dtype, ir.Shape(shape), name=tensor.name)


def _made(weight: LazyWeight, name: str, *, is_turned: bool) -> ir.TensorProtocol:
    """Return a tensor into which adapters are merged when it is written."""
    shape = weight.shape[::-1] if is_turned else weight.shape

    def make() -> ir.TensorProtocol:
        array = weight.read()
        return ir.Tensor(np.ascontiguousarray(array.T) if is_turned else array)

    return ir.LazyTensor(make, _IR_TYPES[weight.dtype], ir.Shape(shape), name=name)


def _read(stored: StoredTensor, is_turned: bool) -> ir.TensorProtocol:  # noqa: FBT001 -- of a partial
    """Map a weight: its pages are the system's, and go when they are written."""
    dtype = np.dtype(DTYPES[stored.dtype])
    mapped = np.memmap(stored.file, dtype, mode="r", offset=stored.offset, shape=stored.shape or (1,))
    array: np.ndarray = mapped.reshape(stored.shape)
    return ir.Tensor(np.ascontiguousarray(array.T) if is_turned else array, _IR_TYPES[stored.dtype])


def _cast(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    array: np.ndarray = tensor.numpy()
    return ir.Tensor(array.astype(dtype.numpy()), dtype)
