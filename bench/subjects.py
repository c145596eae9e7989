"""Seeded networks, each with its signature: small architectures of transformers, and a few of our own.

Nothing is downloaded: every network is made from a configuration and a seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 -- everyone calls it so
import transformers as hf
from torch import Tensor, nn

from anyport.recipe import Part
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BATCH: Final = {"batch": "1..8"}
TEXT: Final = BATCH | {"sequence": "1..40"}
PICTURE: Final = BATCH | {"height": "32..96:32", "width": "32..96:32"}
IDS: Final = "int64[batch, sequence] 0..199"
MASK: Final = "int64[batch, sequence] 0..1"


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to export, and what is declared about it.

    Attributes:
        name: Short, as the tables and ``--only`` say it.
        load: Makes it, in eval mode.
        inputs: Input name -> notation.
        outputs: Output name -> notation.
        dims: Named axis -> sizes.
        arguments: Fixed arguments of ``forward``.
    """

    name: str
    load: Callable[[], nn.Module]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    dims: Mapping[str, str]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def part(self) -> Part:
        """Make the network and declare its signature."""
        signature = Signature(
            tuple(tensor(name, text) for name, text in self.inputs.items()),
            tuple(tensor(name, text) for name, text in self.outputs.items()),
            {name: dim(name, text) for name, text in self.dims.items()},
        )
        return Part(self.name.replace("-", "_"), self.load(), signature, self.arguments)


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Make a network from a seed; statistics of BatchNorm, which a fresh network has as 0 and 1, are moved."""
    torch.manual_seed(seed)
    module = make().eval()
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 -- the common class has no public name
            assert child.running_mean is not None
            assert child.running_var is not None
            child.running_mean.normal_(0.0, 0.2)
            child.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(child.weight, 0.8, 1.2)
            nn.init.normal_(child.bias, 0.0, 0.2)
    return module


def stirred(module: nn.Module) -> nn.Module:
    """Move every bias and norm off its 0 or 1, so that no two weights are the same by chance."""
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight), alpha=0.05)
    return module
