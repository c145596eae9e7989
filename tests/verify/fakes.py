"""A small masked text encoder in numpy, in float32 and float64, and sessions around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from anyport.cases import Normal, make_array
from anyport.tensors import TensorSpec, dim, tensor
from anyport.verify import Answer, Expected, LazyArray, PartSpec, SweepSettings, measure_floor, plan_cases

if TYPE_CHECKING:
    from anyport.cases import Case
    from anyport.verify import CasePlan
    from anyport.verify.weights import WeightKind

Feeds = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]
Arrays = dict[str, np.ndarray]
Function = Callable[[Feeds], Outputs]

INPUTS = (
    tensor("ids", "int64[batch, sequence] 0..49"),
    tensor("mask", "int64[batch, sequence] 0..1"),
    tensor("bias", "float32[batch, 16]"),
)
OUTPUTS = (tensor("logits", "float32[batch, 10]"), tensor("label", "int64[batch]"))
DIMS = {"batch": dim("batch", "1..8"), "sequence": dim("sequence", "1..32")}
PART = PartSpec("encoder", "fp32", INPUTS, OUTPUTS, DIMS, command="anyport verify m.port --part encoder")


def f16(values: object) -> np.ndarray:
    return np.asarray(values, np.float16)


def f32(values: object) -> np.ndarray:
    return np.asarray(values, np.float32)


def f64(values: object) -> np.ndarray:
    return np.asarray(values, np.float64)


def weight(seed: int, *shape: int) -> np.ndarray:
    return make_array(Normal(seed, 0.3), shape, "float32")


TABLE, INNER, OUTER = weight(1, 50, 16), weight(2, 16, 64), weight(3, 64, 10)


def encoder(feeds: Feeds, dtype: type = np.float32, *, flip: bool = False, eps: float = 1e-5) -> Outputs:
    """Embed, average under the mask, normalise, two layers; ``flip`` sums in another order."""
    step = -1 if flip else 1
    mask: np.ndarray = feeds["mask"].astype(dtype)[..., None]
    rows = TABLE.astype(dtype)[feeds["ids"]] * mask
    mean = rows[:, ::step].sum(axis=1) / np.maximum(mask.sum(axis=1), dtype(1e-9))
    mean = mean + feeds["bias"].astype(dtype)
    centred = mean - mean.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + dtype(eps))
    inner = np.tanh(normed[:, ::step] @ INNER.astype(dtype)[::step])
    logits = inner[:, ::step] @ OUTER.astype(dtype)[::step]
    return {"logits": logits, "label": np.argmax(logits, axis=1)}


def good(feeds: Feeds) -> Outputs:
    return encoder(feeds, flip=True)


class FunctionSession:
    """A function as a session."""

    def __init__(
        self,
        function: Function,
        inputs: tuple[TensorSpec, ...] = INPUTS,
        outputs: tuple[TensorSpec, ...] = OUTPUTS,
    ) -> None:
        self._function = function
        self._inputs, self._outputs = inputs, outputs
        self.n_runs = 0

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    def run(self, feeds: Feeds) -> Outputs:
        self.n_runs += 1
        return self._function(feeds)

    def close(self) -> None:
        pass


class TwinReference:
    """A function of (feeds, dtype) in float32 and float64."""

    def __init__(
        self,
        function: Callable[[Feeds, type], Outputs] = encoder,
        inputs: tuple[TensorSpec, ...] = INPUTS,
    ) -> None:
        self._function, self._inputs = function, inputs

    def answer(self, case: Case) -> Answer:
        feeds = case.arrays(self._inputs)
        single, double = self._function(feeds, np.float32), self._function(feeds, np.float64)
        floats = [name for name, array in single.items() if array.dtype.kind == "f"]
        with np.errstate(over="ignore"):
            rounded = {name: double[name].astype(single[name].dtype) for name in single}
        how = "PyTorch float32 against float64"
        return Answer(rounded, {name: measure_floor(single[name], double[name], how) for name in floats})


def plan(seed: int = 0) -> CasePlan:
    return plan_cases(INPUTS, DIMS, SweepSettings(seed=seed))


def graph_of(arrays: Mapping[str, np.ndarray]) -> dict[str, LazyArray]:
    return {n: LazyArray(a.shape, str(a.dtype), partial(np.asarray, a)) for n, a in arrays.items()}


def wanted(arrays: Mapping[str, np.ndarray], kind: WeightKind = "parameter") -> list[Expected]:
    return [Expected(n, partial(np.asarray, a), kind) for n, a in arrays.items()]


def zero_largest(array: np.ndarray) -> np.ndarray:
    array.reshape(-1)[int(np.argmax(np.abs(array)))] = 0
    return array
