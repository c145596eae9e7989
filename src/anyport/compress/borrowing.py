"""A graph in a folder of our own, its weights beside it and shared, so that probes may stand next to them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from anyport.errors import InputError
from anyport.graph.rewriting import load_graph
from anyport.graph.storing import move_out, write_model

if TYPE_CHECKING:
    from pathlib import Path

_NAME: Final = "model.onnx"


def borrow(graph: Path, folder: Path) -> Path:
    """Return the graph's double in an empty folder.

    Weights outside of the file are linked (copied, where the disk has no links); those inside it are written
    beside the double, so that no probe carries them.

    Raises:
        InputError: A weight lies outside of the graph's folder.
        OSError: The disk is full.
    """
    double = folder / _NAME
    model = load_graph(graph)
    files = {
        v.const_value.location
        for v in model.graph.initializers.values()
        if isinstance(v.const_value, ir.ExternalTensor)
    }
    if not files:
        move_out(model, folder / "weights.safetensors", frozenset())
        write_model(model, double)
        return double
    for location in sorted(map(str, files)):
        place = folder / location
        if not place.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"weights of {graph.name} lie outside its folder: '{location}'")
        place.parent.mkdir(parents=True, exist_ok=True)
        _share(graph.parent / location, place)
    shutil.copyfile(graph, double)
    return double


def _share(source: Path, place: Path) -> None:
    try:
        os.link(source.resolve(), place)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, place)
