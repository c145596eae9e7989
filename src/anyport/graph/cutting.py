"""A graph cut where its module is cut: between the blocks of an ``nn.ModuleList``.

A piece is what computes some values from values that are known. It reads its weights from the same files, at
the same places as the whole graph, and no more of them than it needs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx
import onnxruntime
from onnx import helper

from anyport.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from anyport.graph.modulemap import ModuleMap

_FOLDER: Final = "session.model_external_initializers_file_folder_path"
_SILENT: Final = 4
_LARGE: Final = 1024  # elements: a constant of that size is a weight


@dataclass(frozen=True, slots=True)
class Piece:
    """Some nodes of a graph.

    Attributes:
        nodes: Their places in the graph, ascending.
        inputs: The known values that they read.
        outputs: What they are asked for.
        weights: The initializers that they read.
    """

    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...]


class Cutter:
    """Cuts a graph into pieces.

    Args:
        model: Without its external data.
        modules: Which module each value came from.
        blocks: The paths of the blocks.
    """

    def __init__(self, model: onnx.ModelProto, modules: ModuleMap, blocks: Sequence[str]) -> None:
        self._model = model
        self._nodes = list(model.graph.node)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers = {name: place for place, node in enumerate(self._nodes) for name in node.output if name}
        self._homes = [_home(node, modules, blocks) for node in self._nodes]
        self._readers: dict[str, set[str]] = defaultdict(set)
        for place, node in enumerate(self._nodes):
            for name in _reads(node):
                self._readers[name].add(self._homes[place])
        self.outputs = tuple(value.name for value in model.graph.output)
        self.inputs = tuple(value.name for value in model.graph.input if value.name not in self._weights)

    def exits(self, block: str) -> tuple[str, ...]:
        """Return the values that leave a block, in the order in which they are computed."""
        return tuple(
            name
            for name, place in self._makers.items()
            if self._homes[place] == block and (name in self.outputs or self._readers[name] - {block})
        )

    def between(self, block: str) -> tuple[str, ...]:
        """Return the values that a block reads and no block has computed, weights left out."""
        varying = self._varying()
        return tuple(
            name
            for name, place in self._makers.items()
            if not self._homes[place] and block in self._readers[name] and place in varying
        )

    def _varying(self) -> set[int]:
        """Return the nodes that depend on an input of the graph; the others are made of weights alone."""
        moving, found = set(self.inputs), set()
        for place, node in enumerate(self._nodes):
            if any(name in moving for name in _reads(node)):
                moving.update(node.output)
                found.add(place)
        return found

    def piece(self, outputs: Sequence[str], known: Collection[str]) -> Piece:
        """Return what computes ``outputs`` from ``known`` values, and from nothing else but weights.

        Raises:
            ExportError: It needs an input that is not known.
        """
        nodes: set[int] = set()
        inputs: dict[str, None] = {}
        weights: dict[str, None] = {}
        waiting = list(outputs)
        while waiting:
            name = waiting.pop()
            if name in known:
                inputs[name] = None
            elif name in self._weights:
                weights[name] = None
            elif name in self._makers:
                place = self._makers[name]
                if place not in nodes:
                    nodes.add(place)
                    waiting += _reads(self._nodes[place])
            elif name:
                raise ExportError(f"the graph needs the value '{name}', which nothing computes")
        return Piece(tuple(sorted(nodes)), tuple(inputs), tuple(outputs), tuple(sorted(weights)))

    def strangers(self, piece: Piece, block: str) -> tuple[str, ...]:
        """Return the other blocks whose weights a piece computes with: then it was not cut between them."""
        found = {
            self._homes[place]
            for place in piece.nodes
            for name in _reads(self._nodes[place])
            if name in self._weights and math.prod(self._weights[name].dims) >= _LARGE
        }
        return tuple(sorted(found - {"", block}))

    def model(self, piece: Piece, feeds: Mapping[str, np.ndarray]) -> onnx.ModelProto:
        """Return a piece as a model of its own, for inputs of these types."""
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(feeds[name].dtype), [None] * feeds[name].ndim
            )
            for name in piece.inputs
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in piece.outputs]
        graph = helper.make_graph(
            [self._nodes[place] for place in piece.nodes],
            "piece",
            inputs,
            outputs,
            [self._weights[name] for name in piece.weights],
        )
        model = helper.make_model(
            graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version
        )
        model.functions.extend(self._model.functions)
        return model

    def run(
        self, piece: Piece, known: Mapping[str, np.ndarray], folder: Path, n_threads: int | None = None
    ) -> dict[str, np.ndarray]:
        """Run a piece in ONNX Runtime, with its weights left in their files.

        Args:
            piece: Of this graph.
            known: The values that it reads, among others.
            folder: What the places of external weights are relative to.
            n_threads: Of the session; ``None`` is as many as there are cores.
        """
        feeds = {name: known[name] for name in piece.inputs}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _SILENT
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry("optimization.disable_specified_optimizers", "ConstantFolding")
        options.add_session_config_entry(_FOLDER, str(folder.resolve()))
        if n_threads is not None:
            options.intra_op_num_threads = n_threads
        content = self.model(piece, feeds).SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return dict(zip(piece.outputs, session.run(list(piece.outputs), feeds), strict=True))


def _home(node: onnx.NodeProto, modules: ModuleMap, blocks: Sequence[str]) -> str:
    """Return the block that a node belongs to; empty for none."""
    origin = next((modules.values[name] for name in node.output if name in modules.values), None)
    path = origin.module if origin is not None else ""
    return next((block for block in blocks if path == block or path.startswith(f"{block}.")), "")


def _reads(node: onnx.NodeProto) -> list[str]:
    """Return what a node reads, its inner graphs included, which may name values of their own, too."""
    names = [name for name in node.input if name]
    for graph in _inner(node):
        own = {name for inner in graph.node for name in inner.output}
        own |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        names += [name for inner in graph.node for name in _reads(inner) if name not in own]
        names += [value.name for value in graph.output if value.name not in own]
    return names


def _inner(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
