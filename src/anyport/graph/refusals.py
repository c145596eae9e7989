"""What is refused although it would export: the graph would not compute what the module computes."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

import torch

from anyport.errors import ExportError, RefusedModelError
from anyport.source.adapter import PREFIX
from anyport.source.lines import user_line, where_is

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.export import ExportedProgram
    from torch.fx import Node

    from anyport.recipe import Part

_TRAINING_ARGUMENTS: Final = ("train", "training")


def check_program(program: ExportedProgram, part: Part) -> tuple[str, ...]:
    """Look for what a graph cannot keep.

    Returns:
        Warnings: checks of the module that the graph will not make.

    Raises:
        RefusedModelError: Random operators, operators in training mode, or state that a run changes.
        ExportError: A declared input that the module never reads.
    """
    for node in _calls(program):
        if _is_training(node):
            raise RefusedModelError(
                f"part '{part.name}' runs {_operator(node)} in training mode",
                where=_place(node, part),
                do="pass training=self.training, and call model.eval()",
            )
        if _is_random(node):
            raise RefusedModelError(
                f"part '{part.name}' draws random numbers ({_operator(node)}): each run would differ",
                where=_place(node, part),
                do="take the noise as an input, or keep it in a buffer",
            )
    _check_state_kept(program, part)
    _check_inputs_read(program, part)
    return tuple(_asserts(program, part))


def _check_state_kept(program: ExportedProgram, part: Part) -> None:
    """Refuse writes into weights, also through views of them: the graph would forget them."""
    signature = program.graph_signature
    owners = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    held = {node: owners[node.name] for node in program.graph.nodes if node.name in owners}
    for node in _calls(program):
        for owner, is_write in _touched(node, held):
            if is_write:
                raise changes_state(owner, part, _place(node, part))
            held[node] = owner


def changes_state(name: str, part: Part, where: str) -> RefusedModelError:
    """Return the error of a module that changes its own buffer."""
    return RefusedModelError(
        f"part '{part.name}' writes to its own buffer '{name.removeprefix(PREFIX)}': each run would change "
        "the next",
        where=where,
        do="give the state as an input and return it as an output",
    )


def _touched(node: Node, held: Mapping[Node, str]) -> list[tuple[str, bool]]:
    """Return (owner, whether it is written) for the operands of a node that are views of weights."""
    if node.target is operator.getitem:
        whole = node.args[0]
        return [(held[whole], False)] if isinstance(whole, torch.fx.Node) and whole in held else []
    schema = getattr(node.target, "_schema", None)
    given = _arguments(node)
    touched = []
    for argument in schema.arguments if schema is not None else ():
        value, alias = given.get(argument.name), argument.alias_info
        if alias is None or not isinstance(value, torch.fx.Node) or value not in held:
            continue
        if alias.is_write or _shares_memory(node, value):
            touched.append((held[value], alias.is_write))
    return touched


def _shares_memory(view: Node, whole: Node) -> bool:
    """Say whether what may be a view is one: ``contiguous`` and ``to`` copy when they must."""
    one, other = view.meta.get("val"), whole.meta.get("val")
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return True
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)  # noqa: SLF001 -- no public way


def _check_inputs_read(program: ExportedProgram, part: Part) -> None:
    names = program.graph_signature.user_inputs
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for spec, name in zip(part.signature.inputs, names, strict=True):
        node = nodes.get(str(name))
        if node is not None and not _is_read(node):
            raise ExportError(
                f"input '{spec.name}' of part '{part.name}' is declared, and nothing reads its values",
                where=where_is(part.module),
                do="leave it out of the inputs, or find where the model loses it",
            )


def _is_read(node: Node) -> bool:
    return any("sym_size" not in str(user.target) for user in node.users)


def _calls(program: ExportedProgram) -> Iterator[Node]:
    return (node for node in program.graph.nodes if node.op == "call_function")


def _arguments(node: Node) -> dict[str, Any]:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    names = [argument.name for argument in schema.arguments]
    return dict(zip(names, node.args, strict=False)) | node.kwargs


def _parameter_names(node: Node) -> set[str]:
    schema = getattr(node.target, "_schema", None)
    return set() if schema is None else {argument.name for argument in schema.arguments}


def _is_training(node: Node) -> bool:
    given = _arguments(node)
    return any(given.get(name) is True for name in _TRAINING_ARGUMENTS)


def _is_random(node: Node) -> bool:
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    names = _parameter_names(node)
    if names & set(_TRAINING_ARGUMENTS):  # dropout in eval mode; in training mode it is refused as such
        return False
    if "dropout_p" in names:
        return float(_arguments(node).get("dropout_p", 0.0)) > 0
    return True


def _asserts(program: ExportedProgram, part: Part) -> Iterator[str]:
    for node in _calls(program):
        if "_assert_async" in str(node.target) or "_assert_scalar" in str(node.target):
            line = user_line(node.meta.get("stack_trace", ""))
            if line is not None and ": assert" in line:
                yield f"the graph does not check what part '{part.name}' asserts: {line}"


def _operator(node: Node) -> str:
    return str(node.target).removeprefix("aten.").split(".", 1)[0]


def _place(node: Node, part: Part) -> str:
    modules = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    path = modules[-1].removeprefix("module").lstrip(".") if modules else ""
    line = user_line(node.meta.get("stack_trace", "")) or where_is(part.module)
    return f"module '{path}', {line}" if path else line
