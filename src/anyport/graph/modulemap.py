"""The module map: which module and which source line every value of a graph came from.

Simplifiers wipe the metadata of nodes but keep the names of values, so the map is kept beside the graph,
and the graph itself is cleaned: torch writes stack traces with absolute paths into every node.
"""

from __future__ import annotations

import ast
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import msgspec

from anyport.graph.derivations import Derivations
from anyport.source.adapter import PREFIX
from anyport.source.lines import user_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

SCOPES: Final = "pkg.torch.onnx.name_scopes"
TRACE: Final = "pkg.torch.onnx.stack_trace"


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a value comes from.

    Attributes:
        module: The path of the innermost module, such as ``encoder.layer.2``; empty is the whole model.
        line: ``file.py:12: code`` in the user's code, relative to its package.
    """

    module: str = ""
    line: str = ""


class ModuleMap(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where everything in a graph comes from.

    Attributes:
        values: Value name -> origin; the same for every tool that keeps value names.
        weights: How the initializers follow from the module's weights; ``None`` if nobody looked.
    """

    values: dict[str, Origin]
    weights: Derivations | None = None

    def encode(self) -> bytes:
        """Return the bytes of ``modules.json``: the same map gives the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1) + b"\n"

    @classmethod
    def decode(cls, content: bytes) -> ModuleMap:
        """Read ``modules.json``."""
        return msgspec.json.decode(content, type=cls)


def map_modules(model: ir.Model) -> ModuleMap:
    """Read the origins out of the nodes' metadata, and clear that metadata."""
    known = {node: _origin(node.metadata_props) for node in model.graph.all_nodes() if node.metadata_props}
    values: dict[str, Origin] = {}
    for node in model.graph.all_nodes():
        origin = known[node] if node in known else _between(node, known)
        for value in node.outputs:
            if value.name and origin != Origin():
                values[value.name] = origin
        node.metadata_props.clear()
        node.doc_string = None
    _clear(model)
    return ModuleMap(values)


def _between(node: ir.Node, known: Mapping[ir.Node, Origin]) -> Origin:
    """Place a node that the optimizer made: in the innermost module that holds all its neighbours."""
    around = [value.producer() for value in node.inputs if value is not None]
    around += [user for value in node.outputs for user, _ in value.uses()]
    paths = [known[other].module.split(".") for other in around if other is not None and other in known]
    common = takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
    return Origin(".".join(names[0] for names in common))


def _origin(metadata: Mapping[str, str]) -> Origin:
    try:
        scopes = ast.literal_eval(metadata.get(SCOPES, "[]"))
    except (ValueError, SyntaxError):
        scopes = []
    path = scopes[-2] if len(scopes) > 1 else ""
    path = path.removeprefix(PREFIX) if path != PREFIX.rstrip(".") else ""
    line = user_line(metadata.get(TRACE, "")) or ""
    return Origin("" if path.startswith("_empty_nn_module") else path, line)


def _clear(model: ir.Model) -> None:
    """Remove what is left of the exporter's notes; initializers and ends carry some too."""
    graph = model.graph
    for value in [*graph.inputs, *graph.outputs, *graph.initializers.values()]:
        value.metadata_props.clear()
        value.doc_string = None
    for node in graph.all_nodes():
        for value in node.outputs:
            value.metadata_props.clear()
    graph.metadata_props.clear()
    graph.doc_string = None
    model.metadata_props.clear()
    model.doc_string = None
