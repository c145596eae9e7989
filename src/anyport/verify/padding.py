"""Which positions of an answer count: what a model answers at padding is nobody's business."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anyport.tensors import TensorSpec


def counted_positions(
    output: TensorSpec, inputs: Iterable[TensorSpec], feeds: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """Find the padding of an output in the masks that were given.

    A mask is a whole-number or bool input of zeros and ones with ``mask`` in its name; in a ``padding_mask``
    (``key_padding_mask``, as PyTorch has it) the ones are the padding. Where the output begins with the
    mask's axes, each position has its own value; where it shares the first axis only, a row counts unless
    all of it is padding.

    >>> import numpy as np; from anyport.tensors import tensor
    >>> mask = tensor("attention_mask", "int64[batch, sequence] 0..1")
    >>> feeds = {"attention_mask": np.int64([[1, 1, 0], [0, 0, 0]])}
    >>> counted_positions(tensor("states", "float32[batch, sequence, 8]"), [mask], feeds).tolist()
    [[True, True, False], [False, False, False]]
    >>> counted_positions(tensor("pooled", "float32[batch, 8]"), [mask], feeds).tolist()
    [True, False]

    Returns:
        bool over the first axes of the output; ``None`` if no mask applies.
    """
    counted: np.ndarray | None = None
    for spec in inputs:
        if not spec.is_mask or "mask" not in spec.name.lower() or not spec.axes or not output.axes:
            continue
        is_real = feeds[spec.name] == 0 if "padding_mask" in spec.name.lower() else feeds[spec.name] != 0
        own = _aligned(output, spec, is_real)
        if own is not None:
            counted = own if counted is None else _both(counted, own)
    return counted


def _aligned(output: TensorSpec, mask: TensorSpec, is_real: np.ndarray) -> np.ndarray | None:
    own, its = [axis.text for axis in output.axes], [axis.text for axis in mask.axes]
    if own[: len(its)] == its:
        return is_real
    if own[0] != its[0]:
        return None
    flat = is_real.reshape(is_real.shape[0], -1)
    rows: np.ndarray = np.any(flat, axis=1)
    return rows


def _both(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    n_axes = max(one.ndim, other.ndim)
    first, second = (spread(array, n_axes) for array in (one, other))
    both: np.ndarray = first & second
    return both


def spread(counted: np.ndarray, n_axes: int) -> np.ndarray:
    """Return ``counted`` with axes of size 1 behind its own, so that it broadcasts over an answer."""
    return counted.reshape(*counted.shape, *(1,) * (n_axes - counted.ndim))


def is_batched(output: TensorSpec, inputs: Sequence[TensorSpec]) -> bool:
    """Say whether each place of the first axis is an answer of its own: an input begins with it, too.

    >>> from anyport.tensors import tensor
    >>> is_batched(tensor("y", "float32[batch, 5]"), [tensor("x", "float32[batch, 3]")])
    True
    """
    return bool(output.axes) and any(
        spec.axes and spec.axes[0].text == output.axes[0].text for spec in inputs
    )
