"""The ends of a graph: inputs and outputs with the declared names, types and axes, whoever translated it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from anyport.errors import AxisError, ExportError
from anyport.graph.weightnames import rename

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.recipe import Part
    from anyport.tensors import TensorSpec

_IR_DTYPES: Final = {
    "bool": ir.DataType.BOOL,
    "float16": ir.DataType.FLOAT16,
    "float32": ir.DataType.FLOAT,
    "float64": ir.DataType.DOUBLE,
    "int16": ir.DataType.INT16,
    "int32": ir.DataType.INT32,
    "int64": ir.DataType.INT64,
    "int8": ir.DataType.INT8,
    "uint8": ir.DataType.UINT8,
}


def drop_unused(model: ir.Model) -> None:
    """Remove initializers that nothing reads: runtimes warn about them."""
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]


def name_ends(model: ir.Model, part: Part) -> None:
    """Give inputs and outputs their names; an inner value of the same name would make an invalid file.

    Raises:
        ExportError: The graph has more or fewer of them than are declared.
    """
    graph = model.graph
    ends = [*graph.inputs, *graph.outputs]
    specs = [*part.signature.inputs, *part.signature.outputs]
    if len(graph.inputs) != len(part.signature.inputs) or len(graph.outputs) != len(part.signature.outputs):
        raise ExportError(
            f"the graph of '{part.name}' has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, "
            f"{len(part.signature.inputs)} and {len(part.signature.outputs)} are declared"
        )
    _separate_outputs(model)
    ends = [*graph.inputs, *graph.outputs]
    wanted = {spec.name for spec in specs}
    taken = {v.name for v in _all_values(model)}
    for value in _all_values(model):
        if value.name in wanted and not any(value is end for end in ends):
            rename(model, value, _free_name(f"{value.name}_inner", taken | wanted))
    for place, end in enumerate(ends):
        end.name = f"__end_{place}"  # so that two ends may swap their names
    for end, spec in zip(ends, specs, strict=True):
        end.name = spec.name


def _separate_outputs(model: ir.Model) -> None:
    """Put an Identity before an output that is also an input, an initializer, or another output."""
    graph = model.graph
    seen: list[ir.Value] = list(graph.inputs)
    for place, value in enumerate(graph.outputs):
        if any(value is other for other in seen) or value.producer() is None:
            node = ir.node("Identity", [value])
            node.outputs[0].name = f"__output_{place}"
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            graph.append(node)
            graph.outputs[place] = node.outputs[0]
        seen.append(graph.outputs[place])


def _free_name(wish: str, taken: set[str | None]) -> str:
    name, count = wish, 1
    while name in taken:
        name, count = f"{wish}_{count}", count + 1
    return name


def _all_values(model: ir.Model) -> list[ir.Value]:
    graph = model.graph
    inner = [value for node in graph.all_nodes() for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *inner]


def check_axes(model: ir.Model, part: Part) -> None:
    """Hold the axes of the graph against the declared ones, and write the declared names.

    Raises:
        AxisError: An axis is dynamic in one and fixed in the other.
        ExportError: A type differs.
    """
    ends = [*zip(model.graph.inputs, part.signature.inputs, strict=True)]
    ends += zip(model.graph.outputs, part.signature.outputs, strict=True)
    for value, spec in ends:
        if value.dtype != _IR_DTYPES[spec.dtype]:
            raise ExportError(
                f"tensor '{spec.name}' of part '{part.name}' is {value.dtype} in the graph, not {spec}"
            )
        produced = list(value.shape.dims) if value.shape is not None else None
        if produced is None or len(produced) != len(spec.axes):
            raise AxisError(
                f"tensor '{spec.name}' of part '{part.name}' has the shape {value.shape}, declared as {spec}"
            )
        _check_tensor_axes(produced, spec, part)
        value.shape = ir.Shape([int(a.text) if a.is_fixed else a.text for a in spec.axes])


def _check_tensor_axes(produced: Sequence[int | ir.SymbolicDim], spec: TensorSpec, part: Part) -> None:
    for place, (got, axis) in enumerate(zip(produced, spec.axes, strict=True)):
        where = f"axis {place} of tensor '{spec.name}', part '{part.name}'"
        if isinstance(got, int) and not axis.is_fixed:
            raise AxisError(
                f"axis '{axis}' was asked for as dynamic, the graph has the constant {got}",
                where=where,
                do=f"declare it as {got}, or find what makes it constant",
            )
        if not isinstance(got, int) and axis.is_fixed:
            raise AxisError(
                f"axis {place} of '{spec.name}' was declared as {axis}, the graph has it dynamic",
                where=where,
                do="give it a name: it may be new, such as n_boxes, or computed, such as height//8",
            )
        if isinstance(got, int) and axis.is_fixed and got != axis.size({}):
            raise AxisError(f"axis {place} of '{spec.name}' is declared as {axis}, the model has {got}")


def check_inputs_used(model: ir.Model, part: Part) -> None:
    """Refuse a graph that reads not all of its inputs.

    Raises:
        ExportError: An input has no reader.
    """
    for value in model.graph.inputs:
        if not value.uses() and not value.is_graph_output():
            raise ExportError(
                f"input '{value.name}' of part '{part.name}' is declared, and no node of the graph reads it",
                do="leave it out of the inputs, or find where the model loses it",
            )
