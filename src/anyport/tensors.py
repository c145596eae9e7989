"""Named tensors with named axes, and the inputs that test them; numpy only.

One notation serves Python, TOML and the command line::

    float32[batch, 3, height, width]      a name is a dynamic axis, a number is fixed
    int64[batch, sequence] 0..30521       the values that an input may take (inclusive)
    float32[batch, 2, height//8, 2*width] an output axis may be computed from input axes
    height = 64..1024:32                  a dimension: multiples of 32 from 64 to 1024
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.axes import Axis, parse_axis
from anyport.errors import InputError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DTYPES: Final = (
    "bool",
    "float16",
    "float32",
    "float64",
    "int16",
    "int32",
    "int64",
    "int8",
    "uint8",
)

_SPEC = re.compile(r"^\s*(\w+)\s*\[([^\]]*)\]\s*(?:(-?[\d.eE+-]+?)\s*\.\.\s*(-?[\d.eE+-]+))?\s*$")
_DIM = re.compile(r"\s*(\d{1,18})\s*\.\.\s*(\d{1,18})\s*(?::\s*(\d{1,18}))?\s*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


@dataclass(frozen=True, slots=True)
class Dim:
    """The sizes that a dynamic axis may take: multiples of ``step`` from ``low`` to ``high``."""

    name: str
    low: int
    high: int
    step: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that no tensor has."""
        if self.low < 0 or self.high <= self.low or self.step < 1:
            raise UsageError(
                f"dim '{self.name}' = {self} is not a range of sizes",
                do="write LOW..HIGH with 0 <= LOW < HIGH, or a number in the tensor for a fixed axis",
            )
        if self.low % self.step or self.high % self.step:
            raise UsageError(
                f"dim '{self.name}' = {self}: {self.low} and {self.high} must be multiples of {self.step}"
            )

    def __str__(self) -> str:
        """Return the notation, such as ``64..1024:32``."""
        return f"{self.low}..{self.high}" + (f":{self.step}" if self.step > 1 else "")

    def holds(self, size: int) -> bool:
        """Say whether the axis may have this size."""
        return self.low <= size <= self.high and size % self.step == 0

    @property
    def n_sizes(self) -> int:
        """How many different sizes the axis may have."""
        return (self.high - self.low) // self.step + 1


def dim(name: str, sizes: str) -> Dim:
    """Read a dimension.

    >>> dim("height", "64..1024:32")
    Dim(name='height', low=64, high=1024, step=32)

    Raises:
        UsageError: The notation is not ``LOW..HIGH`` or ``LOW..HIGH:STEP``.
    """
    found = _DIM.fullmatch(sizes)
    if found is None:
        raise UsageError(f"dim '{name}' = '{sizes}' is not understood", do="write it as 1..64 or 64..1024:32")
    low, high, step = found.groups()
    return Dim(name, int(low), int(high), int(step or 1))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The name, type, axes and values of one input or output.

    Attributes:
        name: The name of the tensor in the graph.
        dtype: One of `DTYPES`.
        axes: One `Axis` each: fixed (a number), named (dynamic), or computed from names.
        low: The least value that an input may take; ``None`` means any.
        high: The largest value that an input may take.
    """

    name: str
    dtype: str
    axes: tuple[Axis, ...]
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Return the notation, such as ``int64[batch, sequence] 0..99``."""
        text = f"{self.dtype}[{', '.join(str(axis) for axis in self.axes)}]"
        if self.low is None or self.high is None:
            return text
        return f"{text} {self.low:.17g}..{self.high:.17g}"

    @property
    def is_float(self) -> bool:
        """Whether the values are rounded numbers."""
        return self.dtype.startswith("float")

    @property
    def is_mask(self) -> bool:
        """Whether the values are 0 or 1 in a whole type: a mask, or used like one."""
        return not self.is_float and (self.dtype == "bool" or (self.low, self.high) == (0, 1))

    def dynamic_axes(self) -> dict[int, str]:
        """Return axis number -> name for the axes that are plain names."""
        return {i: axis.name for i, axis in enumerate(self.axes) if axis.name is not None}

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape for these sizes of the named axes.

        Raises:
            UsageError: An axis is named that has no size.
        """
        return tuple(axis.size(sizes) for axis in self.axes)

    def check(self, array: np.ndarray, dims: Mapping[str, Dim], sizes: dict[str, int]) -> None:
        """Check one array given at run time; the sizes of named axes are noted in ``sizes``.

        Raises:
            InputError: The type, the number of axes or a size does not fit.
        """
        if str(array.dtype) != self.dtype:
            raise InputError(
                f"input '{self.name}' is {array.dtype}, the model takes {self}",
                do=f"convert it: array.astype('{self.dtype}')",
            )
        if array.ndim != len(self.axes):
            raise InputError(
                f"input '{self.name}' has {array.ndim} axes {array.shape}, the model takes {self}"
            )
        for axis, size in zip(self.axes, array.shape, strict=True):
            self._check_axis(axis, size, dims, sizes)

    def check_computed(self, array: np.ndarray, sizes: Mapping[str, int]) -> None:
        """Check the axes that are computed from named ones, such as ``past+sequence``.

        Raises:
            InputError: A size is not the computed one.
        """
        for axis, size in zip(self.axes, array.shape, strict=True):
            is_known = axis.name is None and bool(axis.names) and axis.names <= sizes.keys()
            if is_known and size != axis.size(sizes):
                named = ", ".join(f"{name} = {sizes[name]}" for name in sorted(axis.names))
                raise InputError(
                    f"input '{self.name}' has {axis} = {size}, the other inputs have {named}",
                    do=f"give it the size {axis.size(sizes)} there",
                )

    def _check_axis(self, axis: Axis, size: int, dims: Mapping[str, Dim], sizes: dict[str, int]) -> None:
        if axis.name is None:
            if not axis.names and size != axis.size({}):
                raise InputError(f"input '{self.name}' has size {size} where the model takes {axis}: {self}")
            return
        allowed = dims.get(axis.name)
        if allowed is not None and not allowed.holds(size):
            raise InputError(
                f"input '{self.name}' has {axis.name} = {size}, the model takes {allowed}",
                do="resize or pad the input, or build the model again with a wider dim",
            )
        known = sizes.setdefault(axis.name, size)
        if known != size:
            raise InputError(
                f"input '{self.name}' has {axis.name} = {size}, another input has {axis.name} = {known}"
            )


def tensor(name: str, notation: str) -> TensorSpec:
    """Read a tensor.

    >>> str(tensor("ids", "int64[batch, sequence] 0..99"))
    'int64[batch, sequence] 0..99'

    Raises:
        UsageError: The name, the type or an axis is not understood.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"'{name}' is no name for a tensor", do="use letters, digits, '_' and '.'")
    return tensor_of_file(name, notation)


def tensor_of_file(name: str, notation: str) -> TensorSpec:
    """Read a tensor of a file that exists, whose maker may have called it anything.

    >>> tensor_of_file("onnx::Mul_0", "float32[n]").name
    'onnx::Mul_0'

    Raises:
        UsageError: The type or an axis is not understood.
    """
    found = _SPEC.match(notation)
    if found is None:
        raise UsageError(
            f"tensor '{name}' = '{notation}' is not understood",
            do="write it as float32[batch, 3, 224, 224] or int64[batch, sequence] 0..999",
        )
    dtype, axes_text, low, high = found.groups()
    if dtype not in DTYPES:
        raise UsageError(f"tensor '{name}' has the type '{dtype}'{did_you_mean(dtype, DTYPES)}")
    words = axes_text.split(",") if axes_text.strip() else []
    axes = tuple(parse_axis(text.strip(), name) for text in words)
    spec = TensorSpec(name, dtype, axes)
    return spec if low is None else _with_range(spec, low, high)


def _with_range(spec: TensorSpec, low: str, high: str) -> TensorSpec:
    try:
        least, most = float(low), float(high)
    except ValueError as err:
        raise UsageError(f"tensor '{spec.name}': {low}..{high} is no range of values") from err
    if not (math.isfinite(least) and math.isfinite(most) and least < most):
        raise UsageError(
            f"tensor '{spec.name}': {low}..{high} is no range of values: it is empty or infinite"
        )
    return replace(spec, low=least, high=most)


@dataclass(frozen=True, slots=True)
class Signature:
    """Named tensors in, named tensors out, in the order of the graph, and the sizes of the named axes."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dims: Mapping[str, Dim] = field(default_factory=dict)


def check_feeds(
    feeds: Mapping[str, np.ndarray], specs: Iterable[TensorSpec], dims: Mapping[str, Dim]
) -> dict[str, int]:
    """Check the arrays given to a model against what it takes.

    Returns:
        The size of each named axis.

    Raises:
        InputError: A name is missing or unknown, or a type or shape does not fit.
    """
    wanted = {spec.name: spec for spec in specs}
    for name in feeds:
        if name not in wanted:
            raise InputError(f"the model has no input '{name}'{did_you_mean(name, wanted)}")
    sizes: dict[str, int] = {}
    for name, spec in wanted.items():
        if name not in feeds:
            raise InputError(f"input '{name}' is missing: {spec}")
        if not isinstance(feeds[name], np.ndarray):
            raise InputError(f"input '{name}' is a {type(feeds[name]).__name__}, not a numpy array")
        spec.check(feeds[name], dims, sizes)
    for name, spec in wanted.items():
        spec.check_computed(feeds[name], sizes)
    return sizes


def pairs(options: Iterable[str], option: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` options.

    >>> pairs(["batch=1..64"], "--dim")
    {'batch': '1..64'}

    Raises:
        UsageError: There is no ``=``, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UsageError(f"{option} '{text}' is not understood", do=f"write {option} NAME=VALUE")
        if name.strip() in found:
            raise UsageError(f"{option} names '{name.strip()}' twice")
        found[name.strip()] = value.strip()
    return found
