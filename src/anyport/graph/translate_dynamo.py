"""Captured part -> ONNX with PyTorch's dynamo exporter, from opset 18 on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import torch

from anyport.errors import AnyportError, ExportError
from anyport.graph.capture import quiet
from anyport.graph.compact import COMPACT
from anyport.graph.customops import TRANSLATE, foreign_operator, written_at
from anyport.source.lines import first_line, innermost, user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from anyport.graph.capture import Capture
    from anyport.graph.customops import CustomOp
    from anyport.recipe import Part

MIN_OPSET: Final = 18  # asked for less, torch writes 18 with a line in its log


def translate(captured: Capture, part: Part, opset: int, custom_ops: Sequence[CustomOp]) -> ir.Model:
    """Translate a captured program; one without weights is not optimized, which takes its numbers.

    Returns:
        The graph as torch names things; nodes carry torch's metadata.

    Raises:
        ExportError: An operator has no translation.
    """
    table: dict[Any, Any] = dict(COMPACT) if captured.is_hollow else {}
    table |= {op.overload: op.function for op in custom_ops}
    try:
        # torch writes opset 18 and raises it afterwards, so that is where a function's operators must hold
        with quiet(), torch.no_grad(), written_at(custom_ops, MIN_OPSET):
            program = torch.onnx.export(
                captured.program,
                (),
                opset_version=opset,
                dynamo=True,
                optimize=not captured.is_hollow,
                verbose=False,
                custom_translation_table=table or None,
            )
    except AnyportError:
        raise
    except Exception as err:
        is_foreign = foreign_operator(captured, custom_ops) is not None
        raise ExportError(
            f"part '{part.name}' has no translation to ONNX: {first_line(innermost(err))}",
            where=_untranslated_line(str(err), err, captured),
            do=TRANSLATE if is_foreign else "rewrite that line with operators that ONNX has",
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
