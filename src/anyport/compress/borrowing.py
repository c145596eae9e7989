"""A graph in a folder of our own, its weights beside it and shared, so that probes may stand next to them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from anyport.errors import InputError
from anyport.graph.layout import write_wide
from anyport.graph.narrow import is_narrow, stored_tensor
from anyport.graph.rewriting import load_graph

if TYPE_CHECKING:
    from pathlib import Path

_NAME: Final = "model.onnx"


def borrow(graph: Path, folder: Path) -> Path:
    """Return the graph's double in an empty folder.

    Weights outside of the file are linked (copied, where the disk has no links); those inside it, and those
    of 16 bits, are written beside the double, in float32, so that no probe carries them.

    Raises:
        InputError: A weight lies outside of the graph's folder.
        OSError: The disk is full.
    """
    double = folder / _NAME
    model = load_graph(graph)
    stored = [stored_tensor(value.const_value) for value in model.graph.initializers.values()]
    files = sorted({str(tensor.location) for tensor in stored if isinstance(tensor, ir.ExternalTensor)})
    for location in files:
        if not (folder / location).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"weights of {graph.name} lie outside its folder: '{location}'")
    if not files or is_narrow(model):
        write_wide(graph, double)
        return double
    for location in files:
        place = folder / location
        place.parent.mkdir(parents=True, exist_ok=True)
        _share(graph.parent / location, place)
    shutil.copyfile(graph, double)
    return double


def _share(source: Path, place: Path) -> None:
    try:
        os.link(source.resolve(), place)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, place)
