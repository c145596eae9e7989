"""What a candidate is held against: the exact answers, and how exact they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from anyport.bundle.proof import index_in_whole
from anyport.cases import splitmix64
from anyport.verify.tolerance import FLOAT32_EPSILON, TINY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyport.cases import Case
    from anyport.runtime.session import Session
    from anyport.tensors import Dim, TensorSpec

_NOISE_SEEDS: Final = (11, 22, 33, 44)
# Without a float input there is nothing to disturb. Float32 graphs of one text encoder of four layers
# differed by 52 spacings; 8 of these units are 64 spacings.
_BLIND_EPSILON: Final = 8 * FLOAT32_EPSILON


@dataclass(frozen=True, slots=True)
class Floor:
    """How exact a reference itself is, for one output of one case.

    Attributes:
        max_abs: Largest error to expect of a correct float32 computation; infinite where float32 overflows.
        rms: The same for the root of the mean squared error.
        how: How it was found, in words for the verdict.
    """

    max_abs: float
    rms: float
    how: str

    @property
    def is_finite(self) -> bool:
        """Whether there is a floor at all: float32 gave finite numbers wherever float64 did."""
        return math.isfinite(self.max_abs) and math.isfinite(self.rms)


@dataclass(frozen=True, slots=True)
class Answer:
    """The reference's answer to one case.

    Attributes:
        outputs: Output name -> array, rounded to the type of the output.
        floors: Float output name -> its floor; whole-number outputs have none.
        shapes: Output name -> its shape, for those of which ``outputs`` holds a sample
            (`anyport.bundle.proof.sample_of`).
    """

    outputs: Mapping[str, np.ndarray]
    floors: Mapping[str, Floor]
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def shape_of(self, output: str) -> tuple[int, ...]:
        """Return the shape of an output as the graph gives it."""
        return tuple(self.shapes.get(output, self.outputs[output].shape))

    def index_of(self, output: str, index: tuple[int, ...]) -> tuple[int, ...]:
        """Return where in an output an element of ``outputs`` lies; the same, unless that is a sample."""
        if output not in self.shapes or not index:
            return index
        return index_in_whole(index[0], self.outputs[output].size, self.shapes[output])


class Reference(Protocol):
    """Whatever knows the right answers: PyTorch, a recorded proof, or another graph."""

    def answer(self, case: Case) -> Answer:
        """Return the right answer to one case, and how exact it is."""
        ...


@dataclass(frozen=True, slots=True)
class PartSpec:
    """What is compared, and the words that messages use for it.

    Attributes:
        name: The part, such as ``vision_encoder``.
        variant: The variant, such as ``fp32``.
        inputs: The inputs of both sides.
        outputs: The outputs that are compared.
        dims: The sizes that named axes may take.
        command: The command that shows more; it ends a failed verdict's message.
        reference: What messages call the reference.
    """

    name: str
    variant: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dims: Mapping[str, Dim] = field(default_factory=dict)
    command: str = "anyport verify"
    reference: str = "the PyTorch model"


def measure_floor(float32_output: np.ndarray, float64_output: np.ndarray, how: str) -> Floor:
    """Measure how far float32 is from float64 on one output of one case.

    At least one spacing of the output's own type at its largest (``max_abs``) or RMS value (``rms``), and
    never below the least normal float32. Positions where both are NaN or infinite do not count; where only
    the float32 side is, float32 itself overflows and the floor is infinite.

    >>> measure_floor(np.float32([1.0, 2.0]), np.float64([1.0, 2.0]), "twin").max_abs == 2 * 2.0**-23
    True

    Args:
        float32_output: The answer in the output's own type: float32, or what it is cast to at the end.
        float64_output: The answer of the same program in float64, not rounded.
        how: How the two were made, for the verdict.
    """
    own = float32_output.dtype
    with np.errstate(over="ignore"):
        representable = np.isfinite(float64_output.astype(own))
    if not np.isfinite(float32_output[representable]).all():
        return Floor(math.inf, math.inf, f"{how}; float32 itself overflows here")
    exact = float64_output[representable].astype(np.float64)
    error = float32_output[representable].astype(np.float64) - exact
    spacing = max(FLOAT32_EPSILON, float(np.finfo(own).eps))
    return _floor(error, exact, spacing, how)


def _floor(error: np.ndarray, exact: np.ndarray, spacing: float, how: str) -> Floor:
    return Floor(
        max_abs=max(_largest(error), spacing * _largest(exact), TINY),
        rms=max(root_mean_square(error), spacing * root_mean_square(exact), TINY),
        how=how,
    )


def _largest(array: np.ndarray) -> float:
    return float(np.max(np.abs(array), initial=0.0))


def root_mean_square(array: np.ndarray) -> float:
    """Return the root of the mean square of a float64 array; 0 for an empty one."""
    if array.size == 0:
        return 0.0
    # squares of numbers below 1e-154 vanish, those above 1e154 overflow: scale first
    largest = _largest(array)
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(float(np.mean(np.square(array / largest))))


def perturbation_floor(
    run: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
    feeds: Mapping[str, np.ndarray],
    inputs: Sequence[TensorSpec],
) -> dict[str, Floor]:
    """Estimate the floor of a reference that has no float64 twin: how it reacts to rounding its inputs.

    Each float input is changed by a random relative 2^-23 up or down, over four seeds; the largest reaction
    counts, and at least one spacing of the output. Without float inputs it is 8 spacings of the output.

    Args:
        run: Computes output name -> array; called five times.
        feeds: The inputs of the case.
        inputs: Their specifications.

    Returns:
        Float output name -> floor.
    """
    names = [spec.name for spec in inputs if spec.is_float]
    exact = {name: array for name, array in run(feeds).items() if np.issubdtype(array.dtype, np.floating)}
    if not names:
        how = "8 spacings of float32 (there is no float input to disturb)"
        return {name: _scale_floor(array, _BLIND_EPSILON, how) for name, array in exact.items()}
    how = "the reference's reaction to input noise of 2^-23"
    floors = {name: _scale_floor(array, FLOAT32_EPSILON, how) for name, array in exact.items()}
    for seed in _NOISE_SEEDS:
        shaken = run({name: _shake(feeds[name], name in names, seed) for name in feeds})
        floors = {name: _wider(floor, exact[name], shaken[name]) for name, floor in floors.items()}
    return floors


def _scale_floor(array: np.ndarray, spacing: float, how: str) -> Floor:
    finite = array[np.isfinite(array)].astype(np.float64)
    own = float(np.finfo(array.dtype).eps)
    return _floor(np.zeros(0), finite, max(spacing, own), how)


def _wider(floor: Floor, exact: np.ndarray, shaken: np.ndarray) -> Floor:
    if exact.shape != shaken.shape:
        return floor
    both = np.isfinite(exact) & np.isfinite(shaken)
    error = shaken[both].astype(np.float64) - exact[both].astype(np.float64)
    return Floor(max(floor.max_abs, _largest(error)), max(floor.rms, root_mean_square(error)), floor.how)


def _shake(array: np.ndarray, is_float: bool, seed: int) -> np.ndarray:  # noqa: FBT001  (private, two callers)
    if not is_float:
        return array
    spacing = max(FLOAT32_EPSILON, float(np.finfo(array.dtype).eps))
    signs = (splitmix64(seed, array.size) & np.uint64(1)).astype(np.float64) * 2.0 - 1.0
    shaken: np.ndarray = (array * (1.0 + spacing * signs.reshape(array.shape))).astype(array.dtype)
    return shaken


class SessionReference:
    """Any session as a reference, for instance one .onnx file for another.

    Example::

        verdict = compare(SessionReference(one), other, plan, part)

    Args:
        session: Stays the caller's to close.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def answer(self, case: Case) -> Answer:
        """Return the session's own answer, with a floor from disturbed inputs: five or six runs."""
        inputs = self._session.inputs
        feeds = case.arrays(inputs)
        outputs = self._session.run(feeds)
        return Answer(outputs, perturbation_floor(self._session.run, feeds, inputs))
