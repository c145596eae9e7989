"""Captured part -> ONNX with PyTorch's TorchScript exporter, below opset 18.

The part was captured before, which says what is refused and which axes are dynamic; this exporter traces it
once more with the example of the capture. Memory, beside the module's own: 2.2 times the weights at a peak
(measured at 384 MiB), once above 2 GB (at 2.1 GiB), where the exporter writes them to the temporary folder.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import onnx_ir as ir
import torch
from onnx_ir.passes.common import InlinePass, RemoveUnusedOpsetsPass, ShapeInferencePass

from anyport.errors import AnyportError, ExportError
from anyport.graph.capture import example_tensors, quiet
from anyport.graph.customops import TRANSLATE, foreign_operator, registered, written_at
from anyport.graph.scopes import name_after_modules, python_trace
from anyport.source import Adapter
from anyport.source.lines import first_line, innermost, user_line, user_line_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anyport.graph.capture import Capture
    from anyport.graph.customops import CustomOp
    from anyport.recipe import Part

_OPERATOR: Final = re.compile(r"operator '(\w+::\w+)'|unrecognized namespace (\w+::\w+)")
_ADDED_IN: Final = re.compile(r"added in version (\d+)")
_LOG_SWITCH: Final = "_jit_set_onnx_log_enabled"
_ATTENTION: Final = "aten::scaled_dot_product_attention"


def translate(captured: Capture, part: Part, opset: int, custom_ops: Sequence[CustomOp]) -> ir.Model:
    """Trace a part and translate the trace.

    Returns:
        The graph; nodes carry the metadata that torch's other exporter would give them.

    Raises:
        ExportError: An operator has no translation at this opset.
    """
    adapter = Adapter(part)
    with TemporaryDirectory(prefix="anyport-") as folder:
        path = Path(folder) / "traced.onnx"
        try:
            _export(adapter, path, (captured, part, opset), custom_ops)
        except AnyportError:
            raise
        except Exception as err:
            raise _explain(err, (captured, part, opset), custom_ops) from err
        model = ir.load(path)
        ir.external_data.load_to_model(model)  # above 2 GB: the folder goes
    name_after_modules(model, adapter)
    with quiet():
        InlinePass()(model)
        RemoveUnusedOpsetsPass()(model)
        _set_output_axes(model, captured)
    return model


def _export(
    adapter: Adapter, path: Path, what: tuple[Capture, Part, int], custom_ops: Sequence[CustomOp]
) -> None:
    captured, part, opset = what
    # names that nothing inside the graph has; the declared ones are given afterwards
    names = [f"__input_{place}" for place in range(len(part.signature.inputs))]
    axes = {
        # a computed axis is dynamic, too; what it is called here is forgotten
        name: {i: re.sub(r"\W", "_", axis.text) for i, axis in enumerate(spec.axes) if not axis.is_fixed}
        for name, spec in zip(names, part.signature.inputs, strict=True)
    }
    known = registered(custom_ops, opset)
    with quiet(), _silent_log(), torch.no_grad(), written_at(custom_ops, opset), known as domains:
        torch.onnx.export(
            adapter,
            example_tensors(part, captured.sizes),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=names,
            dynamic_axes=axes,
            custom_opsets=dict(domains),
            verbose=True,  # notes every node's place in the user's code
        )


@contextmanager
def _silent_log() -> Iterator[None]:
    """Keep the exporter from printing whole graphs: it writes to the process's own output, past Python's."""
    backend: Any = torch._C  # noqa: SLF001 -- the log has no public switch
    switch = getattr(backend, _LOG_SWITCH, None)
    if switch is None:
        yield
        return
    switch(False)  # noqa: FBT003 -- torch's signature
    setattr(backend, _LOG_SWITCH, lambda _enabled: None)  # the exporter turns it on, wanted or not
    try:
        yield
    finally:
        setattr(backend, _LOG_SWITCH, switch)


def _explain(
    error: Exception, what: tuple[Capture, Part, int], custom_ops: Sequence[CustomOp]
) -> ExportError:
    captured, part, opset = what
    cause = innermost(error)
    operator, added = _unsupported(cause) or (foreign_operator(captured, custom_ops), None)
    if operator is None:
        return ExportError(
            f"part '{part.name}' has no translation to ONNX opset {opset}: {first_line(cause)}",
            where=user_line(python_trace(str(cause))) or user_line_of(error),
            do="--opset 18 or more takes the other exporter",
        )
    return ExportError(
        f"part '{part.name}' has no translation to ONNX opset {opset}: it uses {operator}"
        + (f", which opset {added} can express" if added else ""),
        where=_line_of(operator, captured),
        do=_advice(operator, added),
    )


def _unsupported(error: BaseException) -> tuple[str, str | None] | None:
    """Return the operator that the exporter does not know, and the opset that has it."""
    if not isinstance(error, torch.onnx.errors.UnsupportedOperatorError):
        return None
    found, added = _OPERATOR.search(str(error)), _ADDED_IN.search(str(error))
    return (found.group(1) or found.group(2), added and added.group(1)) if found else None


def _advice(operator: str, opset: str | None) -> str:
    if operator == _ATTENTION and opset is not None:
        return (
            f"--opset {opset}, or load the model with eager attention "
            "(transformers: attn_implementation='eager')"
        )
    if opset is not None:
        return f"--opset {opset}"
    if not operator.startswith("aten::"):
        return TRANSLATE
    return "--opset 18 or more takes the other exporter; or rewrite that line with operators that ONNX has"


def _line_of(operator: str, captured: Capture) -> str | None:
    """Find the user's line of an operator in the program that was captured first."""
    wanted = operator.replace("::", ".")
    for node in captured.program.graph.nodes:
        target = str(node.target)
        if node.op == "call_function" and (target == wanted or target.startswith(f"{wanted}.")):
            return user_line(node.meta.get("stack_trace", ""))
    return None


def _set_output_axes(model: ir.Model, captured: Capture) -> None:
    """Write what is known of the outputs' axes: constants that follow from the graph, else the capture's.

    The exporter's own notes mix up symbols, and hold sizes of the example where it could not infer.
    """
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    captured_shapes = _captured_shapes(captured)
    if len(captured_shapes) != len(model.graph.outputs):
        return  # the ends are counted later, with a better message
    for value, known in zip(model.graph.outputs, captured_shapes, strict=True):
        inferred = list(value.shape.dims) if value.shape is not None else [None] * len(known)
        if len(inferred) == len(known):
            value.shape = ir.Shape(
                [mine if isinstance(mine, int) else true for mine, true in zip(inferred, known, strict=True)]
            )


def _captured_shapes(captured: Capture) -> list[list[int | str]]:
    program = captured.program
    nodes = {node.name: node for node in program.graph.nodes}
    shapes: list[list[int | str]] = []
    for name in program.graph_signature.user_outputs:
        value: Any = nodes[str(name)].meta["val"]
        shapes.append([size if isinstance(size, int) else str(size) for size in value.shape])
    return shapes
