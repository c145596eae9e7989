"""LoRA adapters merged while weights are read: one weight at a time, never the model.

The rules and the messages are those of `anyport.recipe.adapters`, and so are the numbers, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from anyport.recipe.adapters import read_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from anyport.recipe.adapters import Adapter, Change
    from anyport.source.checkpoint import Checkpoint, StoredTensor


@dataclass(frozen=True, slots=True)
class LazyWeight:
    """A weight that is made when it is asked for.

    Attributes:
        dtype: The word of safetensors for what `read` gives: that of the file, or F32 if it is merged.
        shape: Its sizes.
        read: Reads it anew each time; bfloat16 as its bits. It holds no memory between.
        stored: Where these very numbers lie; ``None`` if something was merged into them.
    """

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    stored: StoredTensor | None = None

    @property
    def is_merged(self) -> bool:
        """Whether it is not what lies in the file."""
        return self.stored is None


@dataclass(frozen=True, slots=True)
class LazyWeights:
    """The weights of a module.

    Attributes:
        weights: Every name of every weight in the module -> how it is read.
        words: What was merged, one line for each adapter.
    """

    weights: Mapping[str, LazyWeight]
    words: tuple[str, ...] = ()


def lazy_weights(
    checkpoint: Checkpoint,
    found: Mapping[str, StoredTensor],
    network: nn.Module,
    adapters: Sequence[Adapter] = (),
) -> LazyWeights:
    """Return how each weight is read: as it is stored, or with adapters merged into it in float32.

    Args:
        checkpoint: Where the weights lie.
        found: What `anyport.source.check_against` found.
        network: What the weights and the adapters are for, on any device; its own weights are not read.
        adapters: Merged one after the other.

    Raises:
        SourceError: An adapter is none, or a key of it fits no layer; it is named.
    """
    changes: dict[StoredTensor, list[Change]] = {}
    words: list[str] = []
    for adapter in adapters:
        own, line = read_changes(network, adapter)
        words.append(line)
        for change in own:  # a weight that two layers share is changed by both
            changes.setdefault(found[f"{change.layer}.weight"], []).append(change)
    weights = {
        name: _lazy(checkpoint, stored, tuple(changes.get(stored, ()))) for name, stored in found.items()
    }
    return LazyWeights(weights, tuple(words))


def as_torch(array: np.ndarray, dtype: str) -> Tensor:
    """Return an array that was read from a checkpoint as a tensor of the type that it is stored in.

    Args:
        array: Of bfloat16 the bits, as uint16; the tensor shares its memory.
        dtype: The word of safetensors.
    """
    tensor = torch.from_numpy(np.atleast_1d(array)).reshape(array.shape)
    return tensor.view(torch.bfloat16) if dtype == "BF16" else tensor


def _lazy(checkpoint: Checkpoint, stored: StoredTensor, changes: tuple[Change, ...]) -> LazyWeight:
    if not changes:
        return LazyWeight(stored.dtype, stored.shape, partial(checkpoint.read, stored), stored)
    return LazyWeight("F32", stored.shape, partial(_merged, checkpoint, stored, changes))


def _merged(checkpoint: Checkpoint, stored: StoredTensor, changes: tuple[Change, ...]) -> np.ndarray:
    with torch.no_grad():
        weight = as_torch(checkpoint.read(stored), stored.dtype)
        for change in changes:
            weight = change.added_to(weight)
    merged: np.ndarray = weight.numpy()
    return merged
