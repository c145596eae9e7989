"""Operators of the user's own: each is composed of ONNX's operators by an onnxscript function.

One table serves both exporters of PyTorch::

    from onnxscript import FLOAT, opset18 as op, script

    @script(default_opset=op)
    def soft_clip(x: FLOAT, limit: float) -> FLOAT:
        bound = op.Constant(value_float=limit)
        return op.Mul(bound, op.Tanh(op.Div(x, bound)))

    OPS = {"demo::soft_clip": soft_clip}

After the translation the functions are inlined. The file holds nothing but ONNX's own operators, and those of
domains whose runtime library the table names::

    OPS = {"demo::split": split, "ai.onnx.contrib": "onnxruntime-extensions"}
"""

from __future__ import annotations

import inspect
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import onnx
import onnx_ir as ir
import torch
from onnxscript import OnnxFunction
from torch.onnx import register_custom_op_symbolic, symbolic_helper, unregister_custom_op_symbolic  # type: ignore[attr-defined]

from anyport.errors import ExportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anyport.graph.capture import Capture

TRANSLATE: Final = "translate your own operator with --custom-op table.py:OPS"
_DOMAIN: Final = re.compile(r"[A-Za-z][\w.-]*")
_OWN_NAMESPACES: Final = {"aten", "higher_order", "prim", "prims"}
_DECORATE: Final = "decorate it with @onnxscript.script(default_opset=onnxscript.opset18)"
# kinds of constant arguments that both exporters hand over, as the TorchScript exporter spells them
_ATTRIBUTES: Final[Mapping[Any, str]] = {
    ir.AttributeType.FLOAT: "f",
    ir.AttributeType.INT: "i",
    ir.AttributeType.INTS: "is",
}


@dataclass(frozen=True, slots=True)
class CustomOp:
    """One operator and its translation.

    Attributes:
        name: As PyTorch spells it, ``namespace::operator``.
        overload: The operator itself.
        function: Its arguments are inputs (tensors) and attributes (annotated float, int, str), in the
            order of the operator's.
        libraries: Domain -> the runtime library with its operators, for those that the table allows.
    """

    name: str
    overload: torch._ops.OpOverload
    function: OnnxFunction[..., Any]
    libraries: Mapping[str, str] = field(default_factory=dict)


def read_custom_ops(table: Any, name: str) -> tuple[CustomOp, ...]:
    """Check a user's table, once the model is loaded and its operators are registered.

    Args:
        table: Operator name -> onnxscript function; domain -> name of its runtime library.
        name: What the user calls the table.

    Raises:
        UsageError: It is no such table, or PyTorch does not know an operator.
    """
    if not isinstance(table, dict) or not table:
        raise UsageError(
            f"'{name}' is a {type(table).__name__} of no translations",
            do='write OPS = {"namespace::operator": onnxscript_function}',
        )
    libraries = {key: value for key, value in table.items() if _is_domain(key) and isinstance(value, str)}
    keys = sorted((key for key in table if key not in libraries), key=str)
    if not keys:
        raise UsageError(
            f"'{name}' names libraries, and translates no operator", do="add namespace::operator"
        )
    return tuple(_read(key, table[key], name, libraries) for key in keys)


def _is_domain(key: Any) -> bool:
    return isinstance(key, str) and "::" not in key and _DOMAIN.fullmatch(key) is not None


def _read(key: Any, function: Any, name: str, libraries: Mapping[str, str]) -> CustomOp:
    if not isinstance(key, str) or key.count("::") != 1:
        raise UsageError(f"'{key}' in '{name}' names no operator", do="write it as namespace::operator")
    if not isinstance(function, OnnxFunction):
        raise UsageError(
            f"the translation of '{key}' is a {type(function).__name__}, not an onnxscript function",
            where=name,
            do=_DECORATE,
        )
    _check_signature(key, function, libraries)
    namespace, _, operator = key.partition("::")
    operator, _, overload = operator.partition(".")
    packet = getattr(getattr(torch.ops, namespace), operator, None)
    found = getattr(packet, overload or "default", None)
    if found is None:
        raise UsageError(
            f"PyTorch knows no operator '{key}'",
            where=name,
            do="register it (torch.library) in a file that the model's own file imports",
        )
    return CustomOp(key, found, function, libraries)


def _check_signature(key: str, function: OnnxFunction[..., Any], libraries: Mapping[str, str]) -> None:
    signature = function.op_signature
    graph = function.function_ir.graph
    if signature is None or len(signature.outputs) != len(graph.outputs):
        raise UsageError(
            f"the translation of '{key}' does not say what it returns",
            do=f"annotate it: def {function.name}(x: FLOAT) -> FLOAT",
        )
    for parameter in signature.params:
        if isinstance(parameter, ir.schemas.AttributeParameter) and parameter.type not in _ATTRIBUTES:
            raise UsageError(
                f"the translation of '{key}' takes '{parameter.name}' as {parameter.type.name}",
                do="constant arguments may be float, int, bool or a sequence of int",
            )
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.domain and node.domain not in libraries:
            raise UsageError(
                f"the translation of '{key}' calls {node.domain}::{node.op_type}",
                do="write it with ONNX's own operators, without other functions; or name the runtime "
                f"library of the domain in the table: '{node.domain}': 'onnxruntime-extensions'",
            )


def foreign_operator(captured: Capture, custom_ops: Sequence[CustomOp]) -> str | None:
    """Return an operator of a program that is neither PyTorch's own nor translated."""
    known = {op.name.partition(".")[0] for op in custom_ops}
    for node in captured.program.graph.nodes:
        namespace = str(getattr(node.target, "namespace", "aten"))
        if node.op == "call_function" and namespace not in _OWN_NAMESPACES:
            name: str = node.target._schema.name  # noqa: SLF001 -- it has no public name
            if name not in known:
                return name
    return None


@contextmanager
def written_at(custom_ops: Sequence[CustomOp], opset: int) -> Iterator[None]:
    """Let the functions count as written at an opset, where every operator in them is the same.

    Exporters refuse functions of any other opset than their own, although most operators have not changed.

    Raises:
        ExportError: An operator is another one at that opset, or does not exist there.
    """
    functions = [(op, op.function.function_ir) for op in custom_ops]
    before = [dict(function.opset_imports) for _, function in functions]
    for op, function in functions:
        _check_operators(op, function, opset)
    try:
        for _, function in functions:
            function.opset_imports[""] = opset
        yield
    finally:
        for (_, function), imports in zip(functions, before, strict=True):
            function.opset_imports.clear()
            function.opset_imports.update(imports)


def _check_operators(op: CustomOp, function: Any, opset: int) -> None:
    own = function.opset_imports.get("", opset)
    for node in ir.traversal.RecursiveGraphIterator(function.graph):
        if node.domain:
            continue  # its library alone knows it
        mine, there = _schema(node.op_type, own), _schema(node.op_type, opset)
        if there is not None and _is_same(mine, there, node.attributes):
            continue
        change = "does not exist" if there is None else "is another operator"
        raise ExportError(
            f"the translation of '{op.name}' uses {node.op_type} of opset {own}, which at opset {opset} "
            + change,
            do=f"write it with onnxscript.opset{opset}",
        )


def _schema(operator: str, opset: int) -> Any:
    try:
        return onnx.defs.get_schema(operator, opset, "")
    except onnx.defs.SchemaError:
        return None


def _is_same(mine: Any, there: Any, used: Mapping[str, Any]) -> bool:
    """Say whether an operator takes, gives and means the same at two opsets.

    Most versions differ in the types they allow, or add an attribute whose default is what was before.
    """
    ends = [[(end.name, end.option) for end in (*s.inputs, *s.outputs)] for s in (mine, there)]
    both = mine.attributes.keys() & there.attributes.keys()
    defaults_kept = all(
        mine.attributes[name].default_value == there.attributes[name].default_value for name in both
    )
    return ends[0] == ends[1] and defaults_kept and used.keys() <= both


@contextmanager
def registered(custom_ops: Sequence[CustomOp], opset: int) -> Iterator[Mapping[str, int]]:
    """Make the operators known to the TorchScript exporter, and forget them afterwards.

    Yields:
        The versions of the functions' domains, as ``torch.onnx.export`` wants them.
    """
    names = [op.name.partition(".")[0] for op in custom_ops]
    try:
        for op, name in zip(custom_ops, names, strict=True):
            register_custom_op_symbolic(name, _symbolic(op), opset)
        yield {op.function.opset.domain: op.function.opset.version for op in custom_ops}
    finally:
        # the exporter registers a function by itself as it meets a call of it
        calls = [(op.function.opset.domain, op.function.name, op.function.opset.version) for op in custom_ops]
        registrations = [(name, opset) for name in names]
        registrations += [(f"{domain}::{name}", version) for domain, name, version in calls]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one that was never registered is no matter
            for name, version in registrations:
                unregister_custom_op_symbolic(name, version)


def _symbolic(op: CustomOp) -> Callable[..., Any]:
    """Return what the TorchScript exporter calls for an operator."""
    parameters = _parameters(op.function)
    kinds = [_ATTRIBUTES.get(getattr(parameter, "type", None), "v") for parameter in parameters]

    def symbolic(graph: Any, *values: Any) -> Any:
        given = list(zip(parameters, values, kinds, strict=True))
        inputs = [value for _, value, kind in given if kind == "v"]
        attributes = {f"{p.name}_{kind[0]}": value for p, value, kind in given if kind != "v"}
        traced = list(graph.original_node.outputs())
        made = graph.onnxscript_op(op.function, *inputs, outputs=len(traced), **attributes)
        for one, like in zip([made] if len(traced) == 1 else made, traced, strict=True):
            # the sizes of the trace are those of one example, and would end up as constants
            one.setType(like.type().with_sizes([None] * like.type().dim()))
        return made

    # parse_args pairs its kinds with the names of the parameters, which must therefore be told
    names = ["graph", *(parameter.name for parameter in parameters)]
    places = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
    symbolic.__signature__ = inspect.Signature(places)  # type: ignore[attr-defined]
    parse_args: Any = symbolic_helper.parse_args
    result: Callable[..., Any] = parse_args(*kinds)(symbolic)
    return result


def _parameters(function: OnnxFunction[..., Any]) -> Sequence[Any]:
    signature = function.op_signature
    return () if signature is None else tuple(signature.params)
