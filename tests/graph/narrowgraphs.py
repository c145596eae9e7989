"""Graphs whose numbers fit 16 bits: the same numbers in a file of 32 bits and in one of 16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx_ir as ir
import torch

from anyport.graph.narrow import narrow_weights
from anyport.graph.rewriting import load_graph
from anyport.graph.storing import move_out, weights_name, write_model

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
HALVES: Final = ("bfloat16", "float16")
BITS: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Pair:
    """One graph stored twice.

    Attributes:
        wide: In float32.
        narrow: In 16 bits.
    """

    wide: Path
    narrow: Path


def rounded(array: np.ndarray, half: str) -> np.ndarray:
    """Return float32 numbers as a checkpoint of 16 bits holds them."""
    found: np.ndarray = torch.from_numpy(array.copy()).to(BITS[half]).float().numpy()
    return found


def pair(graph: Path, half: str, *, beside: bool = True) -> Pair:
    """Store a graph of float32 with its weights rounded, in folders of their own."""
    paths = []
    for word in ("wide", "narrow"):
        model, floats = load_graph(graph), set()
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype == ir.DataType.FLOAT:
                value.const_value = ir.Tensor(rounded(tensor.numpy(), half), name=value.name)
                floats.add(str(value.name))
        path = graph.parent / word / "model.onnx"
        path.parent.mkdir()
        if word == "narrow":
            narrow_weights(model)
        if beside:
            move_out(model, path.with_name(weights_name(path)), frozenset(floats))
        write_model(model, path)
        paths.append(path)
    return Pair(*paths)
