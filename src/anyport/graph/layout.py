"""How a graph lies on the disk: a graph that is made of another one lies as that does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyport.graph.narrow import is_narrow, narrow_weights
from anyport.graph.rewriting import external_names, load_graph, weights_bytes
from anyport.graph.storing import MAX_INSIDE_BYTES, check_file, move_out, weights_name, write_model

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the weights of a graph are, and in how many bits.

    Attributes:
        outside: The initializers that lie beside the .onnx file.
        is_narrow: Whether weights that it computes with in float32 are stored in 16 bits.
    """

    outside: frozenset[str]
    is_narrow: bool


def layout_of(model: ir.Model) -> Layout:
    """Return the layout of a graph from `load_graph`, before anything of it is changed."""
    return Layout(external_names(model), is_narrow(model))


def store_in(layout: Layout, model: ir.Model, path: Path, *, with_shapes: bool = False) -> None:
    """Write a graph in a layout: its weights inside, or beside it as safetensors; in 16 bits if they fit.

    Args:
        layout: Of the graph that it was made of.
        model: It is changed: its weights point into the file.
        path: Of the .onnx file.
        with_shapes: As `write_model` takes it.

    Raises:
        ExportError: The file is not valid ONNX.
        OSError: The disk is full.
    """
    if layout.is_narrow:
        narrow_weights(model)
    if layout.outside or weights_bytes(model) > MAX_INSIDE_BYTES:
        move_out(model, path.with_name(weights_name(path)), layout.outside)
    write_model(model, path, with_shapes=with_shapes)
    check_file(path)


def write_wide(graph: Path, path: Path) -> None:
    """Write a graph's double with all weights beside it and widened, for a tool or a probe.

    Memory: one weight. Disk: the weights in float32.
    """
    model = load_graph(graph)
    move_out(model, path.with_name(weights_name(path)), external_names(model))
    write_model(model, path)
