"""Parts from the short notation, for the tests of source and graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyport.recipe import Part
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

BATCH = {"batch": "1..16"}
X = {"x": "float32[batch, 8]"}
Y = {"y": "float32[batch, 8]"}


def signature(
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    dims: Mapping[str, str] | None = None,
) -> Signature:
    """Read a signature; ``x`` and ``y`` of float32[batch, 8] if nothing else is said."""
    return Signature(
        tuple(tensor(name, text) for name, text in (inputs or X).items()),
        tuple(tensor(name, text) for name, text in (outputs or Y).items()),
        {name: dim(name, text) for name, text in (BATCH if dims is None else dims).items()},
    )


def part_of(
    module: nn.Module,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    dims: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Part:
    """Describe a module in eval mode as the part ``network``."""
    return Part("network", module.eval(), signature(inputs, outputs, dims), arguments or {})
