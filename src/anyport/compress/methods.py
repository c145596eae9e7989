"""The methods of compression, one type each, and their notation.

::

    int8                         the method follows from the graph's operators, the flavour from a measurement
    int8-static                  INT8 with ranges from samples; the flavour is chosen by measurement
    int8-static:u8s8             unsigned activations, signed weights
    int8-static:u8s8:reduced     weights in 7 bits, for CPUs whose 8-bit products saturate
    int8-static:entropy          ranges by entropy; also minmax, percentile=99.9
    int8-dynamic:u8s8:per-tensor one scale for a whole weight
    fp16                         weights stored in 16 bits, computed in 32
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Final, Literal

from anyport.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Kind = Literal["s8", "u8"]

_MIXED_SHARE: Final = 0.1  # of the heavy operators: a family of fewer is left in float
_FLAVOURS: Final = ("s8s8", "u8s8", "u8u8")
_PERCENT = re.compile(r"percentile=(\d{1,3}(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class MinMax:
    """The range is what the samples showed."""

    text: str = field(default="minmax", init=False)


@dataclass(frozen=True, slots=True)
class Percentile:
    """The range holds this share of the values; the others are clipped.

    Attributes:
        percent: From 50 to 100.
    """

    percent: float = 99.99

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 50 <= self.percent <= 100:  # noqa: PLR2004 -- the bounds are in the message
            raise UsageError(f"percentile={self.percent:g} must be from 50 to 100")

    @property
    def text(self) -> str:
        """The notation."""
        return f"percentile={self.percent:g}"


@dataclass(frozen=True, slots=True)
class Entropy:
    """The range loses the least information in the sense of Kullback and Leibler.

    S. Migacz: "8-bit Inference with TensorRT", GTC 2017.
    """

    text: str = field(default="entropy", init=False)


Ranges = Entropy | MinMax | Percentile


@dataclass(frozen=True, slots=True)
class Int8Static:
    """INT8 activations and weights, the ranges of the activations fixed by samples: for convolutions.

    Attributes:
        activation: The type of the activations.
        weight: The type of the weights.
        per_channel: Each output channel of a weight has a scale of its own.
        reduce_range: Weights use 7 bits: on x64 without VNNI the sum of two 8-bit products saturates.
        ranges: How a range follows from the samples.
    """

    activation: Kind = "u8"
    weight: Kind = "s8"
    per_channel: bool = True
    reduce_range: bool = False
    ranges: Ranges = field(default_factory=MinMax)

    def __post_init__(self) -> None:
        """Refuse a pair that no runtime computes with."""
        if (self.activation, self.weight) == ("s8", "u8"):
            raise UsageError("signed activations with unsigned weights (s8u8) run nowhere", do="take u8s8")

    @property
    def text(self) -> str:
        """The notation."""
        words = [f"int8-static:{self.activation}{self.weight}", *_weight_words(self)]
        return ":".join([*words, *([] if self.ranges == MinMax() else [self.ranges.text])])


@dataclass(frozen=True, slots=True)
class Int8Dynamic:
    """INT8 weights, and activations that are quantized as they come: for transformers. Convolutions stay.

    Attributes:
        weight: The type of the weights.
        per_channel: Each output channel of a weight has a scale of its own.
        reduce_range: Weights use 7 bits, as in `Int8Static`.
        embeddings: Tables that are read row by row are INT8 too, each row with a scale.
    """

    weight: Kind = "s8"
    per_channel: bool = True
    reduce_range: bool = False
    embeddings: bool = True

    @property
    def text(self) -> str:
        """The notation."""
        words = [f"int8-dynamic:u8{self.weight}", *_weight_words(self)]
        return ":".join([*words, *([] if self.embeddings else ["float-embeddings"])])


@dataclass(frozen=True, slots=True)
class Fp16Storage:
    """Weights stored in 16 bits and computed with in 32: half the download, never faster on a CPU."""

    text: str = field(default="fp16", init=False)


Method = Fp16Storage | Int8Dynamic | Int8Static

_STATIC: Final = (
    Int8Static("u8", "s8"),
    Int8Static("u8", "s8", reduce_range=True),
    Int8Static("s8", "s8"),
    Int8Static("u8", "u8"),
)
_DYNAMIC: Final = (Int8Dynamic(), Int8Dynamic(reduce_range=True), Int8Dynamic("u8"))
_FAMILIES: Final[Mapping[str, tuple[Method, ...]]] = {
    "fp16": (Fp16Storage(),),
    "int8": (),  # by the graph's operators
    "int8-dynamic": _DYNAMIC,
    "int8-static": _STATIC,
}
_SHARED_WORDS: Final = ("per-tensor", "reduced", "u8s8", "u8u8")
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "fp16": (),
    "int8": (),
    "int8-dynamic": ("float-embeddings", *_SHARED_WORDS),
    "int8-static": ("entropy", "minmax", "percentile=99.99", "s8s8", *_SHARED_WORDS),
}


def candidates(text: str, operators: Mapping[str, int]) -> tuple[Method, ...]:
    """Return the methods that a notation leaves to a measurement; one if it names one.

    >>> [method.text for method in candidates("int8-dynamic", {})]
    ['int8-dynamic:u8s8', 'int8-dynamic:u8s8:reduced', 'int8-dynamic:u8u8']

    Args:
        text: The notation.
        operators: Of the graph: operator -> number of nodes; decides what ``int8`` means.

    Raises:
        UsageError: The notation is not understood.
    """
    family, *words = text.strip().split(":")
    if family not in _FAMILIES:
        raise UsageError(f"there is no method '{family}'{did_you_mean(family, _FAMILIES)}")
    for word in words:
        if word not in _WORDS[family] and not (family == "int8-static" and _PERCENT.fullmatch(word)):
            raise UsageError(f"'{word}' says nothing about {family}{did_you_mean(word, _WORDS[family])}")
    _check_words(words)
    methods = _for_operators(operators) if family == "int8" else _FAMILIES[family]
    found = [_with_words(method, words) for method in methods if _is_flavour(method, words)]
    return tuple(dict.fromkeys(found))


def _check_words(words: list[str]) -> None:
    """Refuse words that contradict each other."""
    rules = [word for word in words if word in {"entropy", "minmax"} or _PERCENT.fullmatch(word)]
    flavours = [word for word in words if word in _FLAVOURS]
    for named, kind in ((flavours, "flavours"), (rules, "rules for a range")):
        for one, other in combinations(named, 2):
            raise UsageError(f"'{one}' and '{other}' are two {kind}", do="name one, or none")


def needs_samples(methods: Iterable[Method]) -> bool:
    """Say whether any method has ranges that come from samples."""
    return any(isinstance(method, Int8Static) for method in methods)


def _for_operators(operators: Mapping[str, int]) -> tuple[Method, ...]:
    """Return static flavours for what convolves, dynamic ones for what multiplies."""
    n_conv = operators.get("Conv", 0)
    n_matmul = operators.get("MatMul", 0) + operators.get("Gemm", 0)
    least = _MIXED_SHARE * (n_conv + n_matmul)
    static = _STATIC if n_conv > least else ()
    return (*static, *(_DYNAMIC if n_matmul > least or not static else ()))


def _is_flavour(method: Method, words: list[str]) -> bool:
    """Say whether a method is one of the flavours that were named; all are if none was."""
    named = [word for word in words if word in _FLAVOURS]
    if named and isinstance(method, Int8Dynamic | Int8Static):
        # a flavour in full means itself: 7 bits only if that is said, too
        is_named = named[0] in method.text.split(":")
        return is_named and (not method.reduce_range or "reduced" in words)
    return True


def _with_words(method: Method, words: list[str]) -> Method:
    if isinstance(method, Fp16Storage):
        return method
    if "per-tensor" in words:
        method = replace(method, per_channel=False)
    if "reduced" in words:
        method = replace(method, reduce_range=True)
    if isinstance(method, Int8Dynamic):
        return replace(method, embeddings="float-embeddings" not in words)
    return replace(method, ranges=_ranges(words))


def _ranges(words: list[str]) -> Ranges:
    if "entropy" in words:
        return Entropy()
    percent = next((float(found[1]) for word in words if (found := _PERCENT.fullmatch(word))), None)
    return MinMax() if percent is None else Percentile(percent)


def _weight_words(method: Int8Dynamic | Int8Static) -> list[str]:
    words = [] if method.per_channel else ["per-tensor"]
    return [*words, *(["reduced"] if method.reduce_range else [])]
