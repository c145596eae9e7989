"""The accounting leg for weights that no memory would hold: by place if they stay, else by content."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import onnx

from anyport.graph.initializers import read_initializers
from anyport.graph.narrow import widened
from anyport.verify import Expected, Leg, Status, account_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    import numpy as np

    from anyport.source.checkpoint import StoredTensor
    from anyport.source.merging import LazyWeight

_MAX_LISTED: Final = 12
_HALVES: Final = ("BF16", "F16")


def weights_leg(
    graph: Path,
    weights: Mapping[str, LazyWeight],
    folder: Path,
    unused: Callable[[], Collection[str]] = tuple,
) -> Leg:
    """Say what became of every weight.

    A weight that the graph reads where the checkpoint has it is found, and not read. Of the others each is
    read once, one at a time, here and there.

    Args:
        graph: The .onnx file.
        weights: Name in the module -> how it is read.
        folder: What the places of external weights are relative to.
        unused: Finds the names of weights that no output depends on; it is called if some are not found.
    """
    model = onnx.load(str(graph), load_external_data=False)
    stored = {one.stored.name: one.stored for one in weights.values() if one.stored is not None}
    stored |= {name: one.stored for name, one in weights.items() if one.stored is not None}
    shards = {one.file for one in stored.values()}
    in_place, wrong = set(), []
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        file = (folder / place.get("location", "")).resolve()
        if tensor.data_location != onnx.TensorProto.EXTERNAL or file not in shards:
            continue
        expected = stored.get(tensor.name)
        if expected is not None and _found(tensor, place) == _place(expected) and file == expected.file:
            in_place.add(expected)
        else:
            wrong.append(_wrong(tensor, place, expected))
    if wrong:
        return Leg("weights", Status.FAIL, wrong[0], tuple(wrong[1:_MAX_LISTED]))
    return _in_place(weights, in_place) if in_place else _by_content(graph, weights, folder, unused)


def _in_place(weights: Mapping[str, LazyWeight], in_place: set[StoredTensor]) -> Leg:
    n_all = len({one.stored or name for name, one in weights.items()})
    absent = sorted(
        {one.stored.name for one in weights.values() if one.stored not in in_place and one.stored}
    )
    line = f"{len(in_place)} of {n_all} weights are read where the checkpoint has them"
    more = f" and {len(absent) - _MAX_LISTED} more" if len(absent) > _MAX_LISTED else ""
    details = (f"not in the graph: {', '.join(absent[:_MAX_LISTED])}{more}",) if absent else ()
    return Leg("weights", Status.PASS, line, details)


def _by_content(
    graph: Path, weights: Mapping[str, LazyWeight], folder: Path, unused: Callable[[], Collection[str]]
) -> Leg:
    names: dict[Any, str] = {}
    for name, one in weights.items():  # tied weights have several names and one place
        names.setdefault(one.stored or name, name)
    expected = {name: Expected(name, partial(_computed, weights[name])) for name in names.values()}
    initializers = read_initializers(graph, folder)
    account = account_weights(expected.values(), initializers)
    if account.n_found < account.n_wanted and (idle := set(unused()) & expected.keys()):
        expected |= {name: replace(expected[name], kind="unused") for name in idle}
        account = account_weights(expected.values(), initializers)
    return account.leg()


def _computed(weight: LazyWeight) -> np.ndarray:
    """Return a weight as the graph computes with it."""
    array = weight.read()
    return widened(array) if weight.dtype in _HALVES else array


def _found(tensor: onnx.TensorProto, place: Mapping[str, str]) -> tuple[int, int, tuple[int, ...]]:
    return int(place.get("offset", 0)), int(place.get("length", -1)), tuple(tensor.dims)


def _place(stored: StoredTensor) -> tuple[int, int, tuple[int, ...]]:
    return stored.offset, stored.n_bytes, stored.shape


def _wrong(tensor: onnx.TensorProto, place: Mapping[str, str], expected: StoredTensor | None) -> str:
    offset, length, shape = _found(tensor, place)
    text = f"the graph reads '{tensor.name}' {list(shape)} at byte {offset} of {place['location']}"
    text += f", {length} bytes"
    if expected is None:
        return f"{text}, and the checkpoint has no weight of this name"
    return (
        f"{text}; it is {list(expected.shape)} at byte {expected.offset} of {expected.file.name}, "
        f"{expected.n_bytes} bytes"
    )
