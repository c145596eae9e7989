"""A stored graph with other weights: the same nodes, names and layout."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from anyport.errors import CheckpointError
from anyport.graph.derivations import derive, sources_of
from anyport.graph.layout import layout_of, store_in
from anyport.graph.rewriting import load_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anyport.graph.derivations import Derivations, Rule

_BITS = {"bfloat16": np.dtype(np.uint16)}


def swap_weights(
    graph: Path,
    output: Path,
    rules: Derivations,
    read: Callable[[str], np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Write a graph anew with the initializers that follow from other weights.

    Weights that lay beside the graph lie beside the new one. Where the old ones are stored in 16 bits, so are
    the new ones that 16 bits hold exactly. Memory: one or two tensors at a time.

    Args:
        graph: The old ``.onnx`` file; it stays as it is.
        output: The new one, in another folder.
        rules: How the initializers follow.
        read: Returns a tensor of the checkpoint.
        metadata: Replaces what the graph says of itself; an empty word removes it.

    Raises:
        CheckpointError: A rule names no initializer of the graph, or what follows is not finite or of another
            shape.
    """
    model = load_graph(graph)
    layout = layout_of(model)
    for name, rule in rules.rules.items():
        value = model.graph.initializers.get(name)
        old = None if value is None else value.const_value
        if value is None or old is None:
            raise CheckpointError(f"the graph has no initializer '{name}', which its modules.json speaks of")
        load = partial(_tensor, name, rule, read, old)
        # what lies beside the graph is made when it is written; what lies inside is small
        is_lazy = name in layout.outside
        shape = ir.Shape(old.shape.numpy())
        value.const_value = (
            ir.LazyTensor(load, dtype=old.dtype, shape=shape, name=name) if is_lazy else load()
        )
    model.metadata_props.update(metadata)
    for key in [key for key, word in model.metadata_props.items() if not word]:
        del model.metadata_props[key]
    store_in(layout, model, output)


def _tensor(
    name: str, rule: Rule, read: Callable[[str], np.ndarray], old: ir.TensorProtocol
) -> ir.TensorProtocol:
    shape = tuple(int(n) for n in old.shape.numpy())
    wanted = _BITS.get(str(old.dtype).lower(), old.dtype.numpy())
    sources = ", ".join(f"'{source}'" for source in sources_of(rule))
    try:
        with np.errstate(all="ignore"):
            made = derive(rule, read)
    except (TypeError, ValueError) as err:
        raise CheckpointError(f"the graph's '{name}' cannot be made of {sources}: {err}") from err
    if made.size != int(np.prod(shape, dtype=np.int64)) or made.dtype != wanted:
        raise CheckpointError(
            f"the graph's '{name}' is {old.dtype.name}{list(shape)}, which {sources} cannot be"
        )
    if made.dtype.kind == "f" and rule.__struct_config__.tag == "folded" and not np.isfinite(made).all():
        raise CheckpointError(
            f"the graph's '{name}' would hold numbers that are not finite: {sources} give none",
            do="look for a negative or huge running variance",
        )
    return ir.Tensor(np.ascontiguousarray(made).reshape(shape), dtype=old.dtype, name=name)
