"""Parts whose weights have shapes and no numbers: so a model is exported that no memory would hold.

The weights are *fake*: torch computes shapes and types with them, and nothing else. What a module computed
itself when it was made, and no checkpoint holds, keeps its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from anyport.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from anyport.recipe import Part
    from anyport.source.checkpoint import StoredTensor


@dataclass(frozen=True, slots=True)
class Hollow:
    """A part that can be exported, and not be run.

    Attributes:
        part: Its weights are fake.
        stored: Name in the part's module -> where its numbers lie; weights that modules share have all names.
    """

    part: Part
    stored: Mapping[str, StoredTensor]


def hollow(part: Part, home: nn.Module, found: Mapping[str, StoredTensor]) -> Hollow:
    """Put fake tensors in the place of a part's weights; one that modules share stays one.

    Args:
        part: Its module is changed. Its weights may be on the meta device.
        home: The part's module, or the one inside it that the checkpoint is of.
        found: Name in ``home`` -> where its numbers lie, as `anyport.source.check_against` returns it.

    Raises:
        SourceError: A tensor has no numbers, and none are stored.
    """
    place = {id(tensor): found[name] for name, tensor in _named(home) if name in found}
    stored = {name: place[id(tensor)] for name, tensor in _named(part.module) if id(tensor) in place}
    for name, tensor in _named(part.module):
        if name not in stored and tensor.is_meta:
            raise SourceError(
                f"'{name}' of part '{part.name}' is neither in the checkpoint nor made by the module",
                do="register what the module computes as a buffer, and make the module inside weightless()",
            )
    _empty(part.module, set(place))
    return Hollow(part, stored)


def _named(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _empty(module: nn.Module, stored: Collection[int]) -> None:
    """Put a fake tensor in the place of each tensor with one of these ids."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # the first keeps its id its own
    # not by setattr, which would untie
    tables = [table for child in module.modules() for table in (child._parameters, child._buffers)]  # noqa: SLF001  # see above
    for table in tables:
        for name, tensor in list(table.items()):
            if tensor is None or id(tensor) not in stored:
                continue
            if id(tensor) not in made:
                made[id(tensor)] = tensor, _fake(tensor, mode)
            table[name] = made[id(tensor)][1]  # type: ignore[assignment]  # one of two tables


def _fake(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    with mode:
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
