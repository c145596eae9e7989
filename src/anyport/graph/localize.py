"""Where a graph first leaves the module: the module's path and the user's line, not a node number.

Every module's output in PyTorch is held against the value that leaves it in the graph, found through the
module map; one run of each is enough, whatever tool rewrote the graph in between.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from anyport.source import Adapter
from anyport.source.adapter import tensors_from
from anyport.source.float64 import NoTwinError, run_in_float64
from anyport.verify import MAX_ABS_MULTIPLE, measure_floor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from anyport.cases import Case
    from anyport.graph.modulemap import ModuleMap
    from anyport.recipe import Part

_WEIGHTS_FOLDER: Final = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first module whose output differs.

    Attributes:
        module: Its path, such as ``encoder.layer.2.dense``.
        kind: Its class.
        line: The user's line, ``file.py:12: code``.
        max_abs: How far its output is off.
        floors: The same, in floors of PyTorch's own rounding.
        n_equal: How many modules before it agree.
    """

    module: str
    kind: str
    line: str
    max_abs: float
    floors: float
    n_equal: int

    def __str__(self) -> str:
        """Return one line."""
        place = f", {self.line}" if self.line else ""
        return (
            f"first differs in module '{self.module}' ({self.kind}{place}) by {self.max_abs:.1e}, "
            f"{self.n_equal} modules before it agree"
        )


def first_difference(part: Part, model: Path, modules: ModuleMap, case: Case) -> Difference | None:
    """Find the first module whose output in the graph is not PyTorch's.

    Args:
        part: The reference.
        model: The .onnx file; its value names are those of the export.
        modules: The module map of the export.
        case: On which the outputs differ.

    Returns:
        ``None`` where no module's output can be told apart from PyTorch's.
    """
    graph = onnx.load(str(model), load_external_data=False)
    exits = {path: value for path, value in module_exits(graph, modules).items() if path}
    if not exits:
        return None
    arrays = case.arrays(part.signature.inputs)
    tensors = tensors_from([arrays[spec.name] for spec in part.signature.inputs])
    try:
        single, double = _module_outputs(part, tensors)
    except NoTwinError:
        return None
    found = _run_with_exits(graph, model.parent, sorted(set(exits.values())), arrays)
    n_equal = 0
    kinds = {path: type(module).__name__ for path, module in part.module.named_modules()}
    for path, value in _in_order(graph, exits):
        if path not in double or found[value].shape != double[path].shape:
            continue
        floor = measure_floor(single[path], double[path], "module").max_abs
        off = float(np.abs(found[value] - double[path]).max(initial=0.0))
        if not off <= MAX_ABS_MULTIPLE * floor:
            line = modules.values[value].line if value in modules.values else ""
            return Difference(path, kinds[path], line, off, off / floor, n_equal)
        n_equal += 1
    return None


def module_exits(graph: onnx.ModelProto, modules: ModuleMap) -> dict[str, str]:
    """Return module path -> the one value that leaves the module; modules with several are left out."""
    readers: dict[str, set[str]] = defaultdict(set)
    ends = {output.name for output in graph.graph.output}
    for node in graph.graph.node:
        origin = next((modules.values[name] for name in node.output if name in modules.values), None)
        for name in node.input:
            readers[name].add(origin.module if origin else "")
    exits: dict[str, list[str]] = defaultdict(list)
    named = [name for node in graph.graph.node for name in node.output if name in modules.values]
    for name in named:
        for path in _enclosing(modules.values[name].module):
            if name in ends or any(not _is_inside(reader, path) for reader in readers[name]):
                exits[path].append(name)
    return {path: values[0] for path, values in exits.items() if len(values) == 1}


def _enclosing(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def _is_inside(path: str, module: str) -> bool:
    return path == module or path.startswith(f"{module}.")


def _in_order(graph: onnx.ModelProto, exits: Mapping[str, str]) -> list[tuple[str, str]]:
    """Order modules as the graph computes their outputs, inner ones before those around them."""
    place = {name: i for i, node in enumerate(graph.graph.node) for name in node.output}
    return sorted(exits.items(), key=lambda item: (place[item[1]], -item[0].count(".")))


def _module_outputs(
    part: Part, tensors: tuple[Tensor, ...]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return module path -> output, in float32 and float64, of modules that run once and return a tensor."""
    adapter = Adapter(part)
    single: dict[str, list[np.ndarray]] = defaultdict(list)
    double: dict[str, list[np.ndarray]] = defaultdict(list)
    with torch.no_grad(), _Listening(part.module, single):
        adapter(*(tensor.clone() for tensor in tensors))
    with _Listening(part.module, double):
        run_in_float64(adapter, tensors)
    once = {path for path, outputs in single.items() if len(outputs) == 1 and len(double[path]) == 1}
    return {path: single[path][0] for path in once}, {path: double[path][0] for path in once}


class _Listening:
    """Keeps a copy of every module's float output; a later layer may write into the original."""

    def __init__(self, module: nn.Module, kept: dict[str, list[np.ndarray]]) -> None:
        self._module = module
        self._kept = kept
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        for path, module in self._module.named_modules():
            self._hooks.append(module.register_forward_hook(self._keeper(path)))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keeper(self, path: str) -> Any:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                self._kept[path].append(output.detach().clone().numpy())

        return keep


def _run_with_exits(
    graph: onnx.ModelProto, folder: Path, names: list[str], feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Run the graph once, inner values added to its outputs, without the runtime's own rewrites."""
    del graph.graph.output[:]
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder.resolve()))
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
