"""A captured part becomes a graph as a plan wants it: opset, and translations of custom operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyport.bundle import stored_text
from anyport.graph.convert import convert, exporter_of
from anyport.graph.customops import read_custom_ops
from anyport.source import load_value

if TYPE_CHECKING:
    from anyport.build.plan import BuildPlan
    from anyport.graph.capture import Capture
    from anyport.graph.convert import Converted
    from anyport.graph.customops import CustomOp
    from anyport.graph.storing import Graph
    from anyport.recipe import Part


def convert_as_planned(captured: Capture, part: Part, plan: BuildPlan) -> Converted:
    """Translate a part to ONNX.

    Raises:
        SourceError: The table of custom operators cannot be imported.
        UsageError: It is no table, or does not fit.
        ExportError: The part has no translation, or the graph is not what was asked for.
    """
    return convert(captured, part, plan.description.build.opset, _custom_ops(plan))


def export_words(converted: Converted, part: Part, plan: BuildPlan) -> dict[str, Any]:
    """Return the settings of the step ``export``, as a manifest keeps them."""
    made = plan.description.build
    words: dict[str, Any] = {
        "part": part.name,
        "opset": made.opset,
        "exporter": exporter_of(made.opset),
        "cures": [*part.cures, *converted.cures],
    }
    if made.fix:
        words["fix"] = dict(sorted(made.fix.items()))
    if converted.custom_ops:
        words["custom_operators"] = list(converted.custom_ops)
    if converted.libraries:
        words["libraries"] = dict(converted.libraries)
    return words


def export_text(graph: Graph) -> str:
    """Say what was written: ``280 nodes, opset 20``, and in which types where not all weights are wide."""
    is_narrow = bool(graph.stored.keys() & {"bfloat16", "float16"})
    words = f", weights in {stored_text(graph.stored)}" if is_narrow else ""
    return f"{graph.n_nodes} nodes, opset {graph.opset}{words}"


def _custom_ops(plan: BuildPlan) -> tuple[CustomOp, ...]:
    text = plan.description.build.custom_ops
    return () if text is None else read_custom_ops(load_value(text, plan.folder, "table"), text)
