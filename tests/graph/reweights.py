"""New weights for the shared exports: every number that may change changes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from torch import nn

    from anyport.graph.derivations import Derivations


def changed(module: nn.Module, keep: Collection[str] = (), tied: Derivations | None = None) -> nn.Module:
    """Return a copy with other weights, all of them but those to keep; tied ones stay tied."""
    other = copy.deepcopy(module)
    aliases = tied.tied if tied else {}
    generator = torch.Generator().manual_seed(3)
    seen = set()
    for name, tensor in other.state_dict().items():
        is_kept = aliases.get(name, name) in keep or tensor.data_ptr() in seen
        if tensor.is_floating_point() and not is_kept:
            seen.add(tensor.data_ptr())
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.mul_(1 + 0.3 * noise).add_(0.05 * noise)
    return other


def save(module: nn.Module, path: Path) -> Path:
    """Write a ``state_dict``; tied tensors come under every name."""
    save_file({name: tensor.clone().contiguous() for name, tensor in module.state_dict().items()}, path)
    return path
