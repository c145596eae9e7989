"""Giving a graph to a tool that rewrites it, and taking back what may be taken back.

A large graph is given away *hollow*: its large weights are inputs of the graph while the tool has it, so that
no tool can copy them, and they are put back afterwards. What comes back must have the inputs, outputs, axes
and operator sets of the original; names of axes and notes, which tools rewrite and drop, are restored.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import onnx
import onnx_ir as ir

from anyport.errors import ExportError
from anyport.graph.narrow import stored_tensor, widen
from anyport.graph.storing import SMALL_BYTES

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT_GROWTH: Final = 2  # a tool that folds constants into a file twice as large has done nobody a service
_FREE_BYTES: Final = 1 << 20


def load_graph(path: Path) -> ir.Model:
    """Read an .onnx file; external weights are mapped, and read when they are used.

    Weights of 16 bits that the graph casts to float32 are float32 weights here, under their own names.
    """
    return widen(ir.load(str(path)))


def weights_bytes(model: ir.Model) -> int:
    """Return the size of all initializers of the main graph."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def external_names(model: ir.Model) -> frozenset[str]:
    """Return the initializers that lie outside of the .onnx file."""
    return frozenset(
        name
        for name, value in model.graph.initializers.items()
        if isinstance(stored_tensor(value.const_value), ir.ExternalTensor)
    )


def weight_names(model: ir.Model) -> frozenset[str]:
    """Return the initializers that swapping weights would look for: those outside of the file, or all."""
    return external_names(model) or frozenset(model.graph.initializers)


def value_names(model: ir.Model) -> frozenset[str]:
    """Return the names of all values that nodes compute."""
    return frozenset(v.name for node in model.graph.all_nodes() for v in node.outputs if v.name)


def hollow_out(model: ir.Model) -> frozenset[str]:
    """Turn every initializer that is large, or outside of the file, into an input; return their names.

    What lies outside are weights that have a name to swap them by, however small: no tool shall merge them.
    """
    graph = model.graph
    taken = []
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and (
            tensor.nbytes >= SMALL_BYTES or isinstance(stored_tensor(tensor), ir.ExternalTensor)
        ):
            taken.append(name)
            _become_input(value, tensor, graph)
    return frozenset(taken)


def _become_input(value: ir.Value, tensor: ir.TensorProtocol, graph: ir.Graph) -> None:
    del graph.initializers[str(value.name)]
    value.const_value = None
    value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
    if not value.is_graph_input():
        graph.inputs.append(value)


def read_rewritten(path: Path, original_bytes: int) -> ir.Model:
    """Read what a tool wrote.

    Raises:
        ExportError: There is no file, it is no graph, too large, or its weights are elsewhere.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise ExportError("it ended well and wrote no file")
    size_bytes = path.stat().st_size
    if size_bytes > _LIMIT_GROWTH * original_bytes + _FREE_BYTES:
        raise ExportError(f"the file grew from {original_bytes} to {size_bytes} bytes")
    try:
        model = ir.serde.deserialize_model(onnx.load(str(path), load_external_data=False))
    except Exception as err:
        raise ExportError("what it wrote is no .onnx file") from err
    if external_names(model):
        raise ExportError("it wrote weights outside of its file")
    return model


def restore(model: ir.Model, original: ir.Model, hollowed: frozenset[str]) -> None:
    """Put back what a tool never saw or may not change.

    Args:
        model: What the tool wrote.
        original: What it was made of.
        hollowed: The weights that the tool saw as inputs.

    Raises:
        ExportError: Inputs, outputs, axes or operator sets are not those of the original.
    """
    _fill(model, original, hollowed)
    for value in [v for v in model.graph.inputs if v.name in model.graph.initializers]:
        model.graph.inputs.remove(value)  # a default that a caller may override: file format 3 had only these
    _check_opsets(model, original)
    ends = (
        ("input", model.graph.inputs, _fed(original)),
        ("output", model.graph.outputs, original.graph.outputs),
    )
    for kind, found, expected in ends:
        _check_names(kind, [str(v.name) for v in found], [str(v.name) for v in expected])
        for mine, theirs in zip(found, expected, strict=True):
            _check_form(kind, mine, theirs)
            mine.shape, mine.type = theirs.shape, theirs.type
            _copy_notes(mine, theirs)
    _copy_model_notes(model, original)


def _fed(model: ir.Model) -> list[ir.Value]:
    """Return the inputs that a caller must give."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def _fill(model: ir.Model, original: ir.Model, hollowed: frozenset[str]) -> None:
    graph = model.graph
    for value in [value for value in graph.inputs if value.name in hollowed]:
        tensor = original.graph.initializers[str(value.name)].const_value
        graph.inputs.remove(value)
        if tensor is None or value.dtype != tensor.dtype or _dims(value) != list(tensor.shape.numpy()):
            raise ExportError(f"weight '{value.name}' came back in another form")
        if value.uses() or value.is_graph_output():
            value.const_value = tensor
            graph.register_initializer(value)


def _check_opsets(model: ir.Model, original: ir.Model) -> None:
    for domain, version in model.opset_imports.items():
        name = domain or "ai.onnx"
        if domain not in original.opset_imports:
            if any(node.domain == domain for node in model.graph.all_nodes()):
                raise ExportError(f"it uses operators of '{name}', which the original does not")
            continue
        if version != original.opset_imports[domain]:
            raise ExportError(
                f"it changed the opset of '{name}' from {original.opset_imports[domain]} to {version}"
            )
    for domain in [d for d in model.opset_imports if d not in original.opset_imports]:
        del model.opset_imports[domain]


def _check_names(kind: str, found: list[str], expected: list[str]) -> None:
    lost = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if lost:
        raise ExportError(f"it lost the {kind} '{lost[0]}'" + (f", it has '{extra[0]}'" if extra else ""))
    if extra:
        raise ExportError(f"it has a new {kind} '{extra[0]}'")
    if found != expected:
        raise ExportError(f"it changed the order of the {kind}s: {', '.join(found)}")


def _check_form(kind: str, mine: ir.Value, theirs: ir.Value) -> None:
    where = f"{kind} '{theirs.name}'"
    if mine.dtype is not None and mine.dtype != theirs.dtype:
        raise ExportError(f"{where} became {mine.dtype}, it was {theirs.dtype}")
    found, expected = _dims(mine), _dims(theirs)
    if found is None or expected is None:
        return  # a tool that forgot the shape has not changed it
    if len(found) != len(expected):
        raise ExportError(f"{where} became {len(found)} axes, it had {len(expected)}")
    for place, (size, declared) in enumerate(zip(found, expected, strict=True)):
        if isinstance(size, int) and size != declared:
            was = f"'{declared}'" if isinstance(declared, str) else f"{declared}"
            raise ExportError(f"axis {place} of {where} became the constant {size}, it was {was}")


def _dims(value: ir.Value) -> list[int | str] | None:
    if value.shape is None:
        return None
    return [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape.dims]


def _copy_notes(mine: Any, theirs: Any) -> None:
    mine.doc_string = theirs.doc_string
    mine.metadata_props.clear()
    mine.metadata_props.update(theirs.metadata_props)


def _copy_model_notes(model: ir.Model, original: ir.Model) -> None:
    """Copy what a graph says of itself, and of its nodes: a node is known by the value that it computes."""
    _copy_notes(model, original)
    _copy_notes(model.graph, original.graph)
    model.graph.name = original.graph.name
    model.ir_version = original.ir_version
    model.producer_name, model.producer_version = original.producer_name, original.producer_version
    model.domain, model.model_version = original.domain, original.model_version
    nodes = {v.name: node for node in original.graph.all_nodes() for v in node.outputs if v.name}
    for node in model.graph.all_nodes():
        known = next((nodes[v.name] for v in node.outputs if v.name in nodes), None)
        if known is not None and known.op_type == node.op_type:
            _copy_notes(node, known)
        else:
            node.doc_string = None
            node.metadata_props.clear()


def fingerprint(model: ir.Model) -> bytes:
    """Return a digest that two graphs share if they differ in nothing but names and the order of weights."""
    digest = hashlib.sha256()
    numbers: dict[ir.Value, str] = {}
    for place, value in enumerate(_fed(model)):
        numbers[value] = f"input {place}"
    for value in model.graph.initializers.values():
        numbers[value] = _tensor_words(value.const_value)
    for node in model.graph:
        digest.update(repr(_node_words(node, numbers)).encode())
    digest.update(repr([numbers.get(value, value.name) for value in model.graph.outputs]).encode())
    return digest.digest()


def _node_words(node: ir.Node, numbers: dict[ir.Value, str]) -> tuple[Any, ...]:
    inputs = [numbers.get(value, str(value.name)) if value is not None else "" for value in node.inputs]
    for value in node.outputs:
        numbers[value] = f"value {len(numbers)}"
    attributes = sorted((name, _attribute_words(a)) for name, a in node.attributes.items())
    return node.domain, node.op_type, node.overload, inputs, len(node.outputs), attributes


def _attribute_words(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        return _tensor_words(attribute.value)
    return hashlib.sha256(
        ir.serde.serialize_attribute(attribute).SerializeToString(deterministic=True)
    ).hexdigest()


def _tensor_words(tensor: ir.TensorProtocol | None) -> str:
    if tensor is None:
        return "no value"
    if tensor.dtype == ir.DataType.STRING:
        return f"strings {tensor.numpy().tolist()}"
    return f"{tensor.dtype} {list(tensor.shape.numpy())} {hashlib.sha256(tensor.tobytes()).hexdigest()}"
