"""What a piece of advice is: for which targets and bundles it holds, and where it is known from."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyport.report.traits import Traits


class Basis(enum.Enum):
    """Where a statement is known from."""

    BUNDLE = "read in the bundle"
    ELSEWHERE = "from elsewhere"
    MEASURED = "measured for anyport"
    UNTRIED = "not measured"


def always(_traits: Traits) -> bool:
    """Say yes to every bundle."""
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """One statement of the tables.

    Attributes:
        targets: For which of them.
        topic: ``runtime``, ``format``, ``precision``, ``cost``, ``limit`` or ``trap``.
        text: What is said; words in braces are the bundle's own.
        basis: Where it is known from.
        source: A link, the machine and versions of a measurement, or why nothing is known.
        applies: For which bundles. Of the choices the first that applies is taken.
    """

    targets: tuple[str, ...]
    topic: str
    text: str
    basis: Basis
    source: str
    applies: Callable[[Traits], bool] = always


# the machines and versions of the measurements; ratios are of CPU time, one thread
VNNI_CNN: Final = "ResNet-50, 224 x 224, ONNX Runtime 1.31.1, Cascade Lake with AVX-512-VNNI"
VNNI_ENCODER: Final = "12-layer encoder, 197 tokens, ONNX Runtime 1.31.1, Cascade Lake with AVX-512-VNNI"
TRAINED_ENCODER: Final = "trained 6-layer sentence encoder, 80 sentences, MatMuls alone"
WASM: Final = "onnxruntime-web 1.30.0 in Node 20, one thread, Cascade Lake"
RUNTIMES: Final = "ResNet-18, a ViT, a BERT, a warp; one thread, Xeon with AVX-512-VNNI, November 2026"
BUNDLE: Final = "manifest and graph files"
_AXES_OPSET: Final = 18


def is_cnn(traits: Traits) -> bool:
    """Say whether it convolves."""
    return traits.kind == "cnn"


def is_transformer(traits: Traits) -> bool:
    """Say whether it attends."""
    return traits.kind == "transformer"


def is_free(traits: Traits) -> bool:
    """Say whether any axis is dynamic."""
    return bool(traits.fix)


def has_cache(traits: Traits) -> bool:
    """Say whether it is run once for each token."""
    return traits.has_cache


def reduces_by_input(traits: Traits) -> bool:
    """Say whether it has reductions that take their axes as an input, which some converters overlook."""
    return traits.opset >= _AXES_OPSET and traits.has("ReduceL1", "ReduceL2", "ReduceSumSquare")


def above(n_bytes: int) -> Callable[[Traits], bool]:
    """Return a test for bundles larger than so many bytes."""
    return lambda traits: traits.size_bytes > n_bytes


def having(*operators: str) -> Callable[[Traits], bool]:
    """Return a test for graphs with any of these operators."""
    return lambda traits: traits.has(*operators)
