"""Faults planted in the files of an export, as a bad tool, a bad cable or a bad day would.

Every fault leaves a valid .onnx file: the checker passes, shapes and names are as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from anyport.bundle import read_header, read_tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto, NodeProto

    from anyport.bundle import TensorEntry

WEIGHTS: Final = "weights.safetensors"
MODEL: Final = "model.onnx"
N_WEIGHTS: Final = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: Short, as the tables and ``--only`` say it.
        subject: The network whose export it is planted in.
        plant: Changes the files of a folder, and says what it changed.
        legs: The legs of the verdict that must see it.
    """

    name: str
    subject: str
    plant: Callable[[Path], str]
    legs: frozenset[str]


# ── in the weights file ─────────────────────────────────────────────────────────────────────────────────
def edit_weight(folder: Path, name: str, change: Callable[[np.ndarray], None]) -> None:
    """Change one tensor of the weights file in place; the header stays as it is."""
    path = folder / WEIGHTS
    entry = read_header(path)[name]
    array = np.array(read_tensor(path, entry))
    before = array.tobytes()
    change(array)
    if array.tobytes() == before:
        raise ValueError(f"the fault changes nothing of '{name}'")
    _overwrite(path, entry, array)


def _overwrite(path: Path, entry: TensorEntry, array: np.ndarray) -> None:
    with path.open("r+b") as file:
        file.seek(entry.offset)
        file.write(np.ascontiguousarray(array).tobytes())


def weight_names(folder: Path) -> list[str]:
    """Choose twenty of the float weights, by a seed; embeddings, norms and biases are among them."""
    header = read_header(folder / WEIGHTS)
    floats = sorted(name for name, entry in header.items() if entry.dtype == "F32")
    chosen = np.random.default_rng(0).choice(len(floats), N_WEIGHTS, replace=False)
    return [floats[place] for place in sorted(chosen.tolist())]


def zero_largest(folder: Path, name: str) -> str:
    """Set the largest element of a weight to zero."""
    found: list[float] = []

    def change(array: np.ndarray) -> None:
        flat = array.reshape(-1)
        place = int(np.argmax(np.abs(flat)))
        found.append(float(flat[place]))
        flat[place] = 0.0

    edit_weight(folder, name, change)
    return f"{name}: {found[0]:.3g} -> 0"


def zero_head_weights(folder: Path) -> str:
    """Zero what the output projection takes from the first of two heads."""
    name = initializer_of(folder, "MatMul", after="Reshape", n_before=("Transpose", "MatMul"))

    def change(array: np.ndarray) -> None:
        array[: array.shape[0] // 2] = 0.0

    edit_weight(folder, name, change)
    return f"{name}: upper half of the rows -> 0"


def change_row(row: int) -> Callable[[Path], str]:
    """Return a fault that changes one row of the vocabulary."""
    name = "embeddings.word_embeddings.weight"

    def change(array: np.ndarray) -> None:
        array[row] += np.float32(1.0)

    def plant(folder: Path) -> str:
        edit_weight(folder, name, change)
        return f"{name}: row {row} + 1"

    return plant


def swap_matrices(folder: Path) -> str:
    """Swap the bytes of a query matrix and a key matrix."""
    return swap_bytes(folder, *query_and_key(folder))


def swap_norms(folder: Path) -> str:
    """Swap the bytes of two LayerNorm weights."""
    layer = "encoder.layer.{}.output.LayerNorm.weight"
    return swap_bytes(folder, layer.format(0), layer.format(1))


def swap_bytes(folder: Path, first: str, second: str) -> str:
    """Swap the bytes of two tensors of one shape."""
    path = folder / WEIGHTS
    header = read_header(path)
    one, two = (np.array(read_tensor(path, header[name])) for name in (first, second))
    _overwrite(path, header[first], two)
    _overwrite(path, header[second], one)
    return f"bytes of {first} <-> {second}"


# ── in the graph ────────────────────────────────────────────────────────────────────────────────────────
def edit_graph(folder: Path, change: Callable[[ModelProto], str]) -> str:
    """Change the .onnx file; the checker must still pass."""
    path = folder / MODEL
    model = onnx.load(str(path), load_external_data=False)
    before = model.SerializeToString(deterministic=True)
    text = change(model)
    after = model.SerializeToString(deterministic=True)
    if after == before:
        raise ValueError(f"the fault changes nothing: {text}")
    path.write_bytes(after)
    onnx.checker.check_model(str(path))
    return text


def set_attribute(op_type: str, name: str, value: float | str) -> Callable[[Path], str]:
    """Return a fault that sets an attribute of the middle node of a kind."""

    def change(model: ModelProto) -> str:
        nodes = [node for node in model.graph.node if node.op_type == op_type]
        node = nodes[len(nodes) // 2]
        old = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}.get(name)
        kept = [entry for entry in node.attribute if entry.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])
        was = old.decode() if isinstance(old, bytes) else f"{old:.3g}" if old is not None else "default"
        return f"{op_type} '{node.name}': {name} {was} -> {value}"

    return lambda folder: edit_graph(folder, change)


def zero_head(model: ModelProto) -> str:
    """Multiply what the first attention layer gives by 0 for its first head, by 1 for the others."""
    producers = producers_of(model)
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    attended = next(
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and _comes_from(node.input[0], softmax, producers)
    )
    mask = numpy_helper.from_array(np.array([0.0, 1.0], np.float32).reshape(1, 2, 1, 1), "head_mask")
    model.graph.initializer.append(mask)
    old, new = attended.output[0], f"{attended.output[0]}_heads"
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    place = next(i for i, node in enumerate(model.graph.node) if node.output[0] == old) + 1
    model.graph.node.insert(place, helper.make_node("Mul", [old, "head_mask"], [new], "zero_head"))
    return f"behind MatMul '{attended.name}': head 0 of 2 times 0"


def swap_inputs(model: ModelProto) -> str:
    """Let the first query projection read the key matrix, and the reverse; the weights stay as they are."""
    first, second = _projections(model)[:2]
    first.input[1], second.input[1] = second.input[1], first.input[1]
    return f"inputs of '{first.name}' and '{second.name}': {second.input[1]} <-> {first.input[1]}"


def query_and_key(folder: Path) -> tuple[str, str]:
    """Return the names of the first two projections of the first attention layer."""
    model = onnx.load(str(folder / MODEL), load_external_data=False)
    first, second = _projections(model)[:2]
    return first.input[1], second.input[1]


def _projections(model: ModelProto) -> list[NodeProto]:
    """Return the products of one value with square weights: query, key and value of the first layer."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    square = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and len(set(shapes.get(node.input[1], (0, 1)))) == 1
    ]
    return [node for node in square if node.input[0] == square[0].input[0]]


def initializer_of(folder: Path, op_type: str, after: str, n_before: tuple[str, ...]) -> str:
    """Return the weight of the first node whose producers are of these kinds, nearest first."""
    model = onnx.load(str(folder / MODEL), load_external_data=False)
    producers = producers_of(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != op_type or node.input[1] not in weights:
            continue
        kinds: list[str] = []
        value = node.input[0]
        while value in producers and len(kinds) < 1 + len(n_before):
            kinds.append(producers[value].op_type)
            value = producers[value].input[0]
        if tuple(kinds) == (after, *n_before):
            return str(node.input[1])
    raise ValueError(f"no {op_type} after {after} has a weight")


def producers_of(model: ModelProto) -> dict[str, NodeProto]:
    """Return value name -> the node that makes it."""
    return {name: node for node in model.graph.node for name in node.output}


def _comes_from(value: str, source: NodeProto, producers: dict[str, NodeProto]) -> bool:
    """Say whether a value is a node's output, at most through the Where that guards NaN rows."""
    node = producers.get(value)
    if node is None:
        return False
    if node.op_type == "Where":
        return any(producers.get(name) is source for name in node.input)
    return node is source


VALUES: Final = frozenset({"values"})
BOTH: Final = frozenset({"values", "weights"})
WEIGHTS_ONLY: Final = frozenset({"weights"})


GELU_TANH: Final = set_attribute("Gelu", "approximate", "tanh")


def planted_faults(unused_row: int) -> tuple[Fault, ...]:
    """Return the faults; the legs that must see each are those that can."""
    epsilon = set_attribute("LayerNormalization", "epsilon", 1e-2)
    corners = set_attribute("Resize", "coordinate_transformation_mode", "align_corners")
    return (
        Fault("epsilon-encoder", "encoder", epsilon, VALUES),
        Fault("epsilon-vision", "vision", epsilon, VALUES),
        Fault("head-encoder", "encoder", lambda folder: edit_graph(folder, zero_head), VALUES),
        Fault("head-vision", "vision", lambda folder: edit_graph(folder, zero_head), VALUES),
        Fault("head-weights", "encoder", zero_head_weights, BOTH),
        Fault("align-resize", "dense", corners, VALUES),
        Fault("align-grid", "dense", set_attribute("GridSample", "align_corners", 1), VALUES),
        Fault("gelu-encoder", "encoder", GELU_TANH, VALUES),
        Fault("gelu-vision", "vision", GELU_TANH, VALUES),
        Fault("unused-row", "encoder", change_row(unused_row), WEIGHTS_ONLY),
        Fault("swap-matrices", "encoder", swap_matrices, BOTH),
        Fault("swap-norms", "encoder", swap_norms, BOTH),
        Fault("swap-inputs", "encoder", lambda folder: edit_graph(folder, swap_inputs), VALUES),
    )
