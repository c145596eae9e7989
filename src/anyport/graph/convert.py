"""A captured part -> ONNX graph with the declared names and axes, and nothing of the building machine.

Two exporters of PyTorch translate; which one follows from the opset. What comes after is the same for both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from anyport.errors import ExportError, UsageError
from anyport.graph import translate_dynamo, translate_torchscript
from anyport.graph.cures import apply_cures
from anyport.graph.ends import check_axes, check_inputs_used, drop_unused, name_ends
from anyport.graph.modulemap import ModuleMap, map_modules
from anyport.graph.tidying import tidy
from anyport.graph.weightnames import name_transposed, restore_names
from anyport.runtime.declared import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from anyport.graph.capture import Capture
    from anyport.graph.customops import CustomOp
    from anyport.recipe import Part

DEFAULT_OPSET: Final = 20
MIN_OPSET: Final = 13  # per-axis quantization, and what published recipes and older runtimes ask for
MAX_OPSET: Final = 23


@dataclass(frozen=True, slots=True)
class Converted:
    """An ONNX graph in memory.

    Attributes:
        model: Inputs, outputs and axes have their declared names; no node carries metadata.
        modules: Which module and line every value came from.
        weight_names: The initializers that are parameters or buffers of the module, by that name.
        cures: The mistakes of the exporter that were mended, one line each.
        custom_ops: The operators that were translated by functions of the user's own.
        libraries: Domain -> the runtime library that a session must load, for operators beside ONNX's own.
    """

    model: ir.Model
    modules: ModuleMap
    weight_names: frozenset[str]
    cures: tuple[str, ...] = ()
    custom_ops: tuple[str, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)


def convert(
    captured: Capture, part: Part, opset: int = DEFAULT_OPSET, custom_ops: Sequence[CustomOp] = ()
) -> Converted:
    """Translate to ONNX: below opset 18 with the TorchScript exporter, from 18 on with dynamo.

    Args:
        captured: Of the part; what cannot be exported was refused there.
        part: What is translated.
        opset: `MIN_OPSET` to `MAX_OPSET`.
        custom_ops: Translations of operators that PyTorch's exporters do not know.

    Raises:
        UsageError: The opset is one that neither exporter can write.
        ExportError: An operator has no translation, or the graph lost an input, a name or its opset.
        AxisError: The dynamic axes of the graph are not those declared.
    """
    check_opset(opset)
    model = _translate(captured, part, opset, custom_ops)
    written = model.opset_imports.get("")
    if written != opset:
        raise ExportError(
            f"opset {opset} was asked for and the exporter wrote {written}", do=f"--opset {written}"
        )
    libraries = {domain: library for op in custom_ops for domain, library in op.libraries.items()}
    _check_domains(model, part, libraries)
    weight_names = restore_names(model, captured)
    if captured.is_hollow:
        tidy(model)
    else:
        weight_names |= name_transposed(model, captured)
    name_ends(model, part)
    check_axes(model, part)
    check_inputs_used(model, part)
    cures = apply_cures(model)
    drop_unused(model)
    modules = map_modules(model)
    used = _used_libraries(model, libraries)
    if used:
        model.metadata_props[LIBRARIES] = json.dumps(used)
    return Converted(model, modules, weight_names, cures, tuple(op.name for op in custom_ops), used)


def check_opset(opset: int) -> None:
    """Refuse an opset that neither exporter can write.

    Raises:
        UsageError: It is below `MIN_OPSET` or above `MAX_OPSET`.
    """
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UsageError(f"opset {opset} cannot be written: {MIN_OPSET}..{MAX_OPSET} can")


def exporter_of(opset: int) -> Literal["dynamo", "torchscript"]:
    """Return which exporter of PyTorch writes an opset."""
    return "dynamo" if opset >= translate_dynamo.MIN_OPSET else "torchscript"


def _translate(captured: Capture, part: Part, opset: int, custom_ops: Sequence[CustomOp]) -> ir.Model:
    translate = {"dynamo": translate_dynamo.translate, "torchscript": translate_torchscript.translate}
    return translate[exporter_of(opset)](captured, part, opset, custom_ops)


def _used_libraries(model: ir.Model, libraries: Mapping[str, str]) -> dict[str, str]:
    domains = {node.domain for node in model.graph.all_nodes()}
    return {domain: library for domain, library in sorted(libraries.items()) if domain in domains}


def _check_domains(model: ir.Model, part: Part, libraries: Mapping[str, str]) -> None:
    """Refuse operators that are neither ONNX's own nor in a library: no runtime would open the file."""
    for node in model.graph.all_nodes():
        if node.domain not in {"", "ai.onnx", *libraries}:
            raise ExportError(
                f"part '{part.name}' would hold the operator {node.domain}::{node.op_type}, which is not "
                "ONNX's own",
                do="compose it of ONNX's operators: --custom-op table.py:OPS",
            )
