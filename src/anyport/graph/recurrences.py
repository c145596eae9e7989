"""What an LSTM or GRU becomes in ONNX: its gates in another order, its directions stacked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from anyport.graph.tensorbits import array_of
from anyport.verify import Expected

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from torch.export import ExportedProgram
    from torch.fx import Node

    from anyport.graph.constants import WeightConstants

# the place of each ONNX gate among PyTorch's: LSTM i o f c of i f g o, GRU z r h of r z n
_GATES: Final = {"gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}
_N_WITH_BIAS: Final = 4  # input weight, recurrent weight, and a bias for each
_TENSORS: Final = {"W": (0,), "R": (1,), "B": (2, 3)}  # of ONNX, from these of PyTorch


@dataclass(frozen=True, slots=True)
class _Layer:
    """The weights of one layer: for each direction, PyTorch's in order."""

    name: str
    cells: tuple[tuple[Any, ...], ...]
    gates: tuple[int, ...]


def recurrence_folds(program: ExportedProgram, constants: WeightConstants) -> Iterator[Expected]:
    """Expect W, R and B of every LSTM and GRU, per layer.

    Source: the ONNX operators LSTM-14 and GRU-14.
    """
    layers = [layer for node in program.graph.nodes for layer in _layers(node, constants)]
    for layer in layers:
        for what, places in _TENSORS.items():
            wanted = [[cell[place] for place in places if place < len(cell)] for cell in layer.cells]
            if not all(wanted):
                continue  # a layer without biases
            of = tuple(name for cell in wanted for weight in cell for name in constants.of(weight))
            load = partial(_stacked, wanted, constants, layer.gates)
            yield Expected(name=f"{layer.name} {what}", load=load, kind="folded", of=of)


def _layers(node: Node, constants: WeightConstants) -> list[_Layer]:
    kind = str(node.target).removeprefix("aten.").partition(".")[0]
    if node.op != "call_function" or kind not in _GATES:
        return []
    # input, state, weights, has_biases, num_layers, dropout, train, bidirectional, batch_first
    weights: Any = node.args[2]
    has_biases, n_layers, is_bidirectional = node.args[3], int(node.args[4]), node.args[7]  # type: ignore[arg-type]
    n_cells = n_layers * (2 if is_bidirectional else 1)
    size = len(weights) // n_cells
    if size != (_N_WITH_BIAS if has_biases else _N_WITH_BIAS // 2) or not all(map(constants.holds, weights)):
        return []  # projections, or weights that are computed at run time
    cells = [tuple(weights[i * size : (i + 1) * size]) for i in range(n_cells)]
    n_directions = n_cells // n_layers
    return [
        _Layer(
            f"{node.name} layer {i}", tuple(cells[i * n_directions : (i + 1) * n_directions]), _GATES[kind]
        )
        for i in range(n_layers)
    ]


def _stacked(cells: list[list[Any]], constants: WeightConstants, gates: tuple[int, ...]) -> np.ndarray:
    """float32[direction, gates * hidden, ...]; float32[direction, 2 * gates * hidden] for B."""
    rows = []
    for cell in cells:
        parts = [constants.value(weight).chunk(len(gates)) for weight in cell]
        rows.append(torch.cat([part[gate] for part in parts for gate in gates]))
    return array_of(torch.stack(rows))
