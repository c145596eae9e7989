"""How the initializers of a graph follow from a checkpoint: few rules, and no guess.

A bundle keeps this in ``modules.json``, so that new weights can be put under the same graph without PyTorch.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import numpy as np

from anyport.bundle.strictjson import convert_tree, parse_json
from anyport.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Read = Callable[[str], np.ndarray]

KEY: Final = "weights"  # of modules.json
_Epsilon = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class Copied(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="copied"):
    """One tensor of the checkpoint, as it is or as the transpose of a matrix."""

    of: str
    transposed: bool = False


class Norm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tensors of a BatchNorm; ``None`` stands for scale 1 and shift 0."""

    scale: str | None
    shift: str | None
    mean: str
    variance: str
    epsilon: _Epsilon


class Folded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="folded"):
    """The weight or bias of a convolution or linear layer that took in the BatchNorm after it.

    Attributes:
        what: Which of the two.
        of: The layer's own tensor; ``None`` for the bias of a layer without.
        norm: The BatchNorm.
        axis: Of the weight, along which its output channels lie.
        transposed: Whether the graph holds the transpose of the matrix.
    """

    what: Literal["bias", "weight"]
    of: str | None
    norm: Norm
    axis: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    transposed: bool = False


Rule = Copied | Folded


class Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor whose values are fixed in the graph: a checkpoint must hold the same.

    Attributes:
        sha256: Of its elements, little-endian, in the order of its shape.
        why: What became of it.
    """

    sha256: str
    why: str


class Derivations(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a graph needs of a checkpoint.

    Attributes:
        state: Every tensor of the module's ``state_dict``: name -> ``float32[10, 48]``.
        rules: Initializer -> how it follows. Initializers without a rule depend on no weight.
        tied: Name -> the name under which the rules know the same tensor.
        unread: Tensors that the graph does not depend on.
        pinned: Tensors that may not change.
        unexplained: Initializers of which nobody knows how they follow; with one, no weight may change.
        infinite: Tensors that held infinite values when the graph was made, as masks do.
    """

    state: dict[str, str]
    rules: dict[str, Rule]
    tied: dict[str, str] = {}
    unread: list[str] = []
    pinned: dict[str, Pin] = {}
    unexplained: list[str] = []
    infinite: list[str] = []


def sources_of(rule: Rule) -> tuple[str, ...]:
    """Return the tensors of a checkpoint that a rule reads."""
    if isinstance(rule, Copied):
        return (rule.of,)
    norm = rule.norm
    wanted: tuple[str | None, ...] = (rule.of, norm.scale, norm.variance)
    if rule.what == "bias":
        wanted = (*wanted, norm.shift, norm.mean)
    return tuple(name for name in wanted if name is not None)


def derive(rule: Rule, read: Read) -> np.ndarray:
    """Compute an initializer, up to its shape.

    >>> tensors = {"fc.weight": np.array([[1.0, 2.0]], np.float32)}
    >>> derive(Copied("fc.weight", transposed=True), tensors.__getitem__).tolist()
    [[1.0], [2.0]]

    Args:
        rule: How.
        read: Returns a tensor of the checkpoint.

    Raises:
        ValueError: The tensors of a fold do not fit each other.
    """
    found = read(rule.of) if isinstance(rule, Copied) else _fold(rule, read)
    return found.T if rule.transposed else found


def _fold(rule: Folded, read: Read) -> np.ndarray:
    """Fold in the precision and the order of PyTorch's exporters.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018, equation 14; the order is that of onnxscript's rewriter.
    """
    norm = rule.norm
    variance = read(norm.variance)
    deviation = np.sqrt(variance + variance.dtype.type(norm.epsilon))
    scale = (1 if norm.scale is None else read(norm.scale)) / deviation
    if rule.what == "weight":
        weight = read(str(rule.of))
        if weight.ndim <= rule.axis or scale.shape != (weight.shape[rule.axis],):
            raise ValueError(f"{scale.shape} channels are not those of {weight.shape}")
        along = [1] * weight.ndim
        along[rule.axis] = -1
        return np.asarray(weight * scale.reshape(along))
    before = variance.dtype.type(0) if rule.of is None else read(rule.of)
    if np.shape(before) not in {(), scale.shape}:
        raise ValueError(f"{scale.shape} channels are not those of {np.shape(before)}")
    shifted = (before - read(norm.mean)) * scale
    return np.asarray(shifted if norm.shift is None else shifted + read(norm.shift))


def digest_of(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's elements."""
    content = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return hashlib.sha256(content.reshape(-1).view(np.uint8).data).hexdigest()


def notation(dtype: str, shape: tuple[int, ...]) -> str:
    """Write a type and a shape: ``float32[10, 48]``."""
    return f"{dtype}[{', '.join(str(n) for n in shape)}]"


def read_derivations(content: bytes, where: str | None = None) -> Derivations | None:
    """Read what ``modules.json`` says of the weights; ``None`` if it says nothing.

    Raises:
        BundleError: It is not understood, or contradicts itself.
    """
    tree: Any = parse_json(content, "modules.json", where)
    if not isinstance(tree, dict) or KEY not in tree:
        return None
    found = convert_tree(tree[KEY], Derivations, "modules.json", where)
    _check(found, where)
    return found


def _check(found: Derivations, where: str | None) -> None:
    named = {name for rule in found.rules.values() for name in sources_of(rule)}
    named |= {*found.tied, *found.tied.values(), *found.unread, *found.pinned, *found.infinite}
    unknown = sorted(named - found.state.keys())
    if unknown:
        raise BundleError(
            f"modules.json speaks of the weight {unknown[0]!r}, which the model lacks", where=where
        )


def names_of(found: Derivations) -> Mapping[str, tuple[str, ...]]:
    """Return, for each tensor that the rules know, all names it has: its own first."""
    names: dict[str, tuple[str, ...]] = {name: (name,) for name in found.state if name not in found.tied}
    for name, own in found.tied.items():
        names[own] = (*names.get(own, (own,)), name)
    return names
