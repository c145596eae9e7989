"""What a graph must hold of a module's weights: bit for bit, or folded in a way computed here by PyTorch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from anyport.graph.constants import FOLD_REL, WeightConstants
from anyport.graph.recurrences import recurrence_folds
from anyport.graph.tensorbits import array_of
from anyport.source.adapter import PREFIX
from anyport.verify import Expected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from torch.export import ExportedProgram
    from torch.fx import Node

_CONVOLUTIONS: Final = ("conv1d", "conv2d", "conv3d", "conv_transpose", "convolution", "linear")


def expected_weights(program: ExportedProgram) -> tuple[Expected, ...]:
    """List every parameter and buffer of an exported `Adapter`, and every fold an optimizer may make.

    Folds are BatchNorm into the convolution before it, BatchNorm as scale and shift, and any
    sub-expression that depends on weights alone.
    """
    # an empty constant is no weight, such as the cache of a decoder at its start
    tensors = {node: found for node, found in weights_by_node(program).items() if found[1].numel()}
    live = live_nodes(program)
    expected = [
        Expected(
            name=name,
            load=partial(array_of, value),
            kind=kind if node in live else "unused",
        )
        for node, (name, value, kind) in tensors.items()
    ]
    seen = {name for name, _, _ in tensors.values()}
    state = {name.removeprefix(PREFIX): value for name, value in program.state_dict.items()}
    # tied weights have several names and one place in memory: one name stands for all
    held = {value.data_ptr() for _, value, _ in tensors.values()}
    expected += [
        Expected(name=name, load=partial(array_of, value), kind="unused")
        for name, value in state.items()
        if name not in seen and isinstance(value, Tensor) and value.data_ptr() not in held
    ]
    constants = WeightConstants(program, tensors)
    expected += list(_batch_norm_folds(program, constants))
    expected += list(recurrence_folds(program, constants))
    expected += list(constants.folds())
    return tuple(expected)


def live_nodes(program: ExportedProgram) -> set[str]:
    """Return the names of the nodes that an output depends on."""
    live: set[Node] = set()
    waiting = [node for node in program.graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node not in live:
            live.add(node)
            waiting.extend(node.all_input_nodes)
    return {node.name for node in live}


def unused_weights(program: ExportedProgram) -> frozenset[str]:
    """Return the parameters and buffers that no output depends on; they may be fake."""
    live = live_nodes(program)
    nodes = weights_by_node(program)
    used = {name for node, (name, _, _) in nodes.items() if node in live}
    return frozenset(name for name, _, _ in nodes.values()) - used


def weights_by_node(program: ExportedProgram) -> dict[str, tuple[str, Tensor, Any]]:
    """Return placeholder -> (name in the module, value, kind) for parameters, buffers and constants."""
    signature = program.graph_signature
    stores: tuple[tuple[Mapping[str, str], str], ...] = (
        (signature.inputs_to_parameters, "parameter"),
        (signature.inputs_to_buffers, "buffer"),
        (signature.inputs_to_lifted_tensor_constants, "buffer"),
    )
    found: dict[str, tuple[str, Tensor, Any]] = {}
    for mapping, kind in stores:
        for node, target in mapping.items():
            value = program.state_dict.get(target, program.constants.get(target))
            if isinstance(value, Tensor):
                found[node] = (target.removeprefix(PREFIX), value, kind)
    return found


def _batch_norm_folds(program: ExportedProgram, constants: WeightConstants) -> Iterator[Expected]:
    for node in program.graph.nodes:
        if node.op != "call_function" or "batch_norm" not in str(node.target):
            continue
        before, *statistics = node.args[:5]
        if not all(constants.holds(s) for s in statistics if s is not None):
            continue
        fold = _Fold(constants, statistics, epsilon_of(node))
        yield fold.expected("scale", fold.scale, ())
        yield fold.expected("shift", fold.shift, ())
        if isinstance(before, torch.fx.Node) and is_convolution(before):
            weight = before.args[1]
            bias = before.args[2] if len(before.args) > 2 else before.kwargs.get("bias")  # noqa: PLR2004
            transposed = "transpose" in str(before.target)
            weight_of, bias_of = constants.of(weight), constants.of(bias)
            yield fold.expected("weight", partial(fold.weight, weight, transposed=transposed), weight_of)
            yield fold.expected("bias", partial(fold.bias, bias), bias_of)


def is_convolution(node: Node) -> bool:
    """Say whether a node is a convolution or a linear layer, which a BatchNorm may be folded into."""
    return any(name in str(node.target) for name in _CONVOLUTIONS)


def epsilon_of(node: Node) -> float:
    """Return the epsilon of a BatchNorm."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]  # noqa: SLF001
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    return float(given["eps"])


class _Fold:
    """BatchNorm as ``x * scale + shift``, and merged into the convolution before it.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018, equation 14.
    """

    def __init__(self, constants: WeightConstants, statistics: list[Any], eps: float) -> None:
        self._constants = constants
        self._statistics = statistics  # weight, bias, running mean, running variance: float32[channels]
        self._eps = eps

    def expected(self, what: str, load: Callable[[], np.ndarray], extra: tuple[str, ...]) -> Expected:
        # a scale says nothing of bias and mean: found alone, it must not vouch for them
        places = (0, 3) if what in {"scale", "weight"} else (0, 1, 2, 3)
        of = tuple(name for place in places for name in self._constants.of(self._statistics[place]))
        owner = self._constants.of(self._statistics[3])[0].rpartition(".")[0] or "batch_norm"
        return Expected(name=f"{owner} folded {what}", load=load, kind="folded", of=extra + of, rtol=FOLD_REL)

    def _value(self, place: int) -> Tensor | None:
        node = self._statistics[place]
        return None if node is None else self._constants.value(node).double()

    def _scale(self) -> Tensor:
        weight, variance = self._value(0), self._constants.value(self._statistics[3]).double()
        inverse = torch.rsqrt(variance + self._eps)
        return inverse if weight is None else weight * inverse

    def scale(self) -> np.ndarray:
        """float32[channels]."""
        return array_of(self._scale().float())

    def shift(self) -> np.ndarray:
        """float32[channels]."""
        return self.bias(None)

    def bias(self, bias: Any) -> np.ndarray:
        """float32[channels]: the bias of the convolution after the fold."""
        beta, mean = self._value(1), self._constants.value(self._statistics[2]).double()
        before = 0.0 if bias is None else self._constants.value(bias).double()
        shift = (before - mean) * self._scale()
        return array_of((shift if beta is None else shift + beta).float())

    def weight(self, weight: Any, *, transposed: bool) -> np.ndarray:
        """float32[channels, ...]: the weight of the convolution after the fold."""
        value, scale = self._constants.value(weight).double(), self._scale()
        if not transposed:
            return array_of((value * scale.reshape(-1, *[1] * (value.ndim - 1))).float())
        # float32[in, out // groups, ...]: the channels of a group lie side by side
        n_groups = scale.numel() // value.shape[1]
        grouped = value.reshape(n_groups, -1, *value.shape[1:])
        scaled = grouped * scale.reshape(n_groups, 1, -1, *[1] * (value.ndim - 2))
        return array_of(scaled.reshape(value.shape).float())
