"""A graph that no optimizer went over is made smaller, in time that grows with its size; no weight is read.

On the 60 layers of Qwen-Image's denoiser PyTorch's own optimizer did not end within nine minutes. What is
done here instead leaves 13,591 nodes of 22,000, in seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

if TYPE_CHECKING:
    from collections.abc import Sequence


def tidy(model: ir.Model) -> None:
    """Compute nothing twice, and split tensors without sequences, which copy what they hold.

    Args:
        model: It is changed; what it computes is not.
    """
    CommonSubexpressionEliminationPass()(model)
    for node in list(model.graph):
        if node.op_type == "SplitToSequence" and not node.domain:
            _split(model.graph, node)
    RemoveUnusedNodesPass()(model)


def _split(graph: ir.Graph, node: ir.Node) -> None:
    """Put a Split in the place of a SplitToSequence whose pieces are all of one known size."""
    readers = [reader for reader, _ in node.outputs[0].uses()]
    places = [_place(reader) for reader in readers]
    n_pieces = _n_pieces(node)
    if n_pieces is None or node.outputs[0].is_graph_output():
        return
    if any(place is None or not -n_pieces <= place < n_pieces for place in places):
        return
    pieces = _pieces(graph, node, n_pieces)
    for reader, place in zip(readers, places, strict=True):
        if place is not None:
            _take_over(reader.outputs[0], pieces[place])
            graph.remove(reader, safe=True)
    graph.remove(node, safe=True)


def _pieces(graph: ir.Graph, node: ir.Node, n_pieces: int) -> Sequence[ir.Value]:
    words = {"axis": node.attributes["axis"].as_int(), "num_outputs": n_pieces}
    split = ir.node("Split", [node.inputs[0]], words, num_outputs=n_pieces, name=f"{node.name}_pieces")
    split.metadata_props.update(node.metadata_props)
    for place, piece in enumerate(split.outputs):
        piece.name = f"{node.outputs[0].name}_{place}"
    graph.insert_before(node, split)
    return split.outputs


def _take_over(old: ir.Value, new: ir.Value) -> None:
    new.shape, new.type = old.shape, old.type
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _place(reader: ir.Node) -> int | None:
    """Return which piece a node takes; ``None`` if it takes another thing, or nobody knows which."""
    return _number(reader.inputs[1]) if reader.op_type == "SequenceAt" and not reader.domain else None


def _n_pieces(node: ir.Node) -> int | None:
    """Return how many pieces of the same size there are, if the pieces keep their axes."""
    axis, keeps = node.attributes.get("axis"), node.attributes.get("keepdims")
    shape, size = node.inputs[0].shape if node.inputs[0] is not None else None, None
    if len(node.inputs) > 1:
        size = _number(node.inputs[1])
    if axis is None or shape is None or not size or (keeps is not None and not keeps.as_int()):
        return None
    whole = shape[axis.as_int()]
    return whole // size if isinstance(whole, int) and whole % size == 0 else None


def _number(value: ir.Value | None) -> int | None:
    constant = ir.convenience.get_const_tensor(value) if value is not None else None
    # with one axis it would list the sizes of all pieces
    return int(constant.numpy()) if constant is not None and not constant.shape.dims else None
