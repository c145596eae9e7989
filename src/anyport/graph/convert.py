"""Exported program -> ONNX graph with the declared names and axes, and nothing of the building machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx_ir as ir
import torch

from anyport.errors import AxisError, ExportError, UsageError
from anyport.graph.capture import quiet
from anyport.graph.cures import apply_cures
from anyport.graph.modulemap import ModuleMap, map_modules
from anyport.graph.weightnames import name_transposed, rename, restore_names
from anyport.source.lines import first_line, innermost, user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.graph.capture import Capture
    from anyport.recipe import Part
    from anyport.tensors import TensorSpec

DEFAULT_OPSET: Final = 20
MIN_OPSET: Final = 18  # the least that torch's exporter writes itself
MAX_OPSET: Final = 23

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


@dataclass(frozen=True, slots=True)
class Converted:
    """An ONNX graph in memory, its weights still those of the module.

    Attributes:
        model: Inputs, outputs and axes have their declared names; no node carries metadata.
        modules: Which module and line every value came from.
        weight_names: The initializers that are parameters or buffers of the module, by that name.
        cures: The mistakes of the exporter that were mended, one line each.
    """

    model: ir.Model
    modules: ModuleMap
    weight_names: frozenset[str]
    cures: tuple[str, ...] = ()


def convert(captured: Capture, part: Part, opset: int = DEFAULT_OPSET) -> Converted:
    """Translate to ONNX.

    Raises:
        UsageError: The opset is one that the exporter cannot write.
        ExportError: An operator has no translation, or the graph lost an input, a name or its opset.
        AxisError: The dynamic axes of the graph are not those declared.
    """
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UsageError(f"opset {opset} cannot be written: {MIN_OPSET}..{MAX_OPSET} can")
    model = _translate(captured, part, opset)
    written = model.opset_imports.get("")
    if written != opset:
        raise ExportError(
            f"opset {opset} was asked for and the exporter wrote {written}", do=f"--opset {written}"
        )
    weight_names = restore_names(model, captured) | name_transposed(model, captured)
    _name_ends(model, part)
    check_axes(model, part)
    _check_inputs_used(model, part)
    cures = apply_cures(model)
    _drop_unused(model)
    return Converted(model, map_modules(model), weight_names, cures)


def _translate(captured: Capture, part: Part, opset: int) -> ir.Model:
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                captured.program, (), opset_version=opset, dynamo=True, optimize=True, verbose=False
            )
    except Exception as err:
        raise ExportError(
            f"part '{part.name}' has no translation to ONNX: {first_line(innermost(err))}",
            where=_untranslated_line(str(err), err, captured),
            do="rewrite that line with operators that ONNX has",
        ) from err
    if program is None:
        raise ExportError(f"part '{part.name}': torch.onnx returned nothing")
    return program.model


def _untranslated_line(text: str, error: BaseException, captured: Capture) -> str | None:
    """Find the user's line through the name of the node that failed (facts: 3 of 3 found this way)."""
    texts = [text, *(str(link) for link in (error.__cause__, error.__context__) if link)]
    found = next((m for t in texts if (m := re.search(r"translating node %(\w+)", t))), None)
    if found is None:
        return None
    graphs = [captured.program.graph]
    try:
        with quiet():
            graphs.append(captured.program.run_decompositions().graph)
    except Exception:  # noqa: BLE001  (only a better message is at stake)
        graphs = graphs[:1]
    for graph in graphs:
        for node in graph.nodes:
            if node.name == found.group(1):
                return user_line(node.meta.get("stack_trace", ""))
    return None


def _drop_unused(model: ir.Model) -> None:
    """Remove initializers that nothing reads: runtimes warn about them."""
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]


def _name_ends(model: ir.Model, part: Part) -> None:
    """Give inputs and outputs their names; an inner value of the same name would make an invalid file."""
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


def _check_inputs_used(model: ir.Model, part: Part) -> None:
    for value in model.graph.inputs:
        if not value.uses() and not value.is_graph_output():
            raise ExportError(
                f"input '{value.name}' of part '{part.name}' is declared, and no node of the graph reads it",
                do="leave it out of the inputs, or find where the model loses it",
            )
