"""What a traced graph knows of its modules, in the form that torch's other exporter gives.

Names of nodes are paths: ``/module/encoder/layer.0/dense/MatMul`` was computed in ``encoder.layer.0.dense``.
"""

from __future__ import annotations

import ast
import linecache
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from anyport.graph.modulemap import SCOPES, TRACE
from anyport.graph.weightnames import rename
from anyport.source.adapter import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

_ROOT: Final = f"/{PREFIX.rstrip('.')}/"
_FRAME: Final = re.compile(r"^\s*(?:\(node defined in )?(/[^\n]+?)\((\d+)\): (\S+)", re.MULTILINE)
_UNNAMED: Final = "onnx::"  # what the exporter calls tensors that it made itself
_FOLDED: Final = {"Conv": ("weight", "bias"), "ConvTranspose": ("weight", "bias")}


def name_after_modules(model: ir.Model, adapter: nn.Module) -> None:
    """Give the nodes of a traced graph their origins, and weights and values names without the adapter's.

    Args:
        model: As the TorchScript exporter wrote it, with the notes of ``verbose=True``.
        adapter: What was traced.
    """
    modules = _modules_by_last_name(adapter)
    for node in model.graph.all_nodes():
        _note_origin(node, modules)
    _separate_shared_weights(model)
    _name_folded_weights(model)
    _shorten_names(model)


def _modules_by_last_name(adapter: nn.Module) -> dict[str, list[str]]:
    """Return the name that a trace gives a module -> the paths of the modules of that name."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, _ in adapter.named_modules():
        found[_last_name(path)].append(path)
    return found


def _last_name(path: str) -> str:
    """Return the last part of a path that is no number, with the numbers behind it.

    >>> _last_name("encoder.layer.0")
    'layer.0'
    """
    parts = path.split(".")
    for place in range(len(parts) - 1, -1, -1):
        if not parts[place].isdigit():
            return ".".join(parts[place:])
    return path


def _note_origin(node: ir.Node, modules: Mapping[str, Sequence[str]]) -> None:
    if node.name is None or not node.name.startswith("/"):
        return  # made by a rewrite of the exporter's: its neighbours say where it belongs
    path = _module_path(node.name.split("/")[1:-1], modules)
    # the other exporter's form: the paths of all modules around, then the node
    node.metadata_props[SCOPES] = repr([path, node.name])
    node.metadata_props[TRACE] = python_trace(node.doc_string or "")


def _module_path(names: Sequence[str], modules: Mapping[str, Sequence[str]]) -> str:
    """Follow the names of a scope down the modules; where two modules fit, stay at the one around them."""
    path = ""
    for name in names:
        inside = [found for found in modules.get(name, ()) if not path or found.startswith(f"{path}.")]
        nearest = min((found.count(".") for found in inside), default=0)
        candidates = [found for found in inside if found.count(".") == nearest]
        if len(candidates) == 1:
            path = candidates[0]
    return path


def python_trace(text: str) -> str:
    r"""Return the stack of a traced node in Python's own form, the innermost frame last.

    >>> print(python_trace("/a/net.py(3): forward\n/a/main.py(9): run"))
    File "/a/main.py", line 9, in run
    <BLANKLINE>
    File "/a/net.py", line 3, in forward
    <BLANKLINE>
    """
    lines = []
    for path, number, name in reversed(_FRAME.findall(text)):
        lines += [f'File "{path}", line {number}, in {name}', linecache.getline(path, int(number)).strip()]
    return "\n".join(lines)


def _separate_shared_weights(model: ir.Model) -> None:
    """Give every weight its own initializer again.

    The exporter keeps one of several tensors of equal content, so that norms of one size share their ones;
    other weights under the same graph would then be lost. Equal bytes are stored once all the same.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Identity" or node.domain:
            continue
        shared, own = node.inputs[0], node.outputs[0]
        tensor = shared.const_value if shared is not None and shared.is_initializer() else None
        if tensor is None or own.name is None or own.is_graph_output():
            continue
        copy = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=own.name)
        value = ir.Value(name=own.name, shape=ir.Shape(copy.shape), type=own.type, const_value=copy)
        ir.convenience.replace_all_uses_with(own, value)
        graph.remove(node, safe=True)
        graph.register_initializer(value)


def _name_folded_weights(model: ir.Model) -> None:
    """Call weights that a norm was folded into what the module calls them."""
    for node in model.graph:
        scopes = node.metadata_props.get(SCOPES)
        if node.op_type not in _FOLDED or scopes is None:
            continue
        path = ast.literal_eval(scopes)[0]
        for value, name in zip(node.inputs[1:], _FOLDED[node.op_type], strict=False):
            wanted = f"{path}.{name}"
            if (
                value is not None
                and value.is_initializer()
                and (value.name or "").startswith(_UNNAMED)
                and len(value.uses()) == 1
                and wanted not in model.graph.initializers
            ):
                rename(model, value, wanted)


def _shorten_names(model: ir.Model) -> None:
    """Leave the adapter out of the names of nodes and values, where that keeps them unique."""
    nodes = list(model.graph.all_nodes())
    values = [value for node in nodes for value in node.outputs]
    taken = {node.name for node in nodes} | {value.name for value in values}
    things: list[ir.Node | ir.Value] = [*nodes, *values]
    for thing in things:
        name = thing.name or ""
        short = "/" + name.removeprefix(_ROOT)
        if name.startswith(_ROOT) and short not in taken:
            thing.name = short
            taken.add(short)
