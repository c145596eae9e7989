"""How large the numbers inside a network become: whether they would fit into float16."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from anyport.source.running import TorchSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

    from anyport.recipe import Part

FLOAT16_MAX: Final = 65504.0  # IEEE 754 binary16; what is larger becomes infinite
NEAR: Final = 0.1  # of it: other inputs than the cases may be ten times as large
_N_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class ModuleRange:
    """The largest magnitude that a module answered; infinite where an answer was no finite number."""

    module: str
    largest: float


@dataclass(frozen=True, slots=True)
class Ranges:
    """What the modules of a part answered in float32, over its own cases.

    Attributes:
        part: Its name.
        n_cases: How many there are.
        modules: Every module that answers floats, the largest first.
    """

    part: str
    n_cases: int
    modules: tuple[ModuleRange, ...]

    @property
    def large(self) -> tuple[ModuleRange, ...]:
        """Those above a tenth of what float16 holds."""
        return tuple(one for one in self.modules if one.largest > NEAR * FLOAT16_MAX)

    def warning(self) -> str | None:
        """Return one line, if anything is large."""
        if not self.large:
            return None
        beyond = [one for one in self.large if one.largest > FLOAT16_MAX]
        words = "would overflow" if beyond else "comes within a tenth of its limit"
        named = ", ".join(f"{one.module} {one.largest:.3g}" for one in self.large[:_N_NAMED])
        more = f" and {len(self.large) - _N_NAMED} more" if len(self.large) > _N_NAMED else ""
        return f"{self.part} in float16 {words} (its limit is {FLOAT16_MAX:.0f}): {named}{more}"

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict: the largest module, and all large ones."""
        return {
            "n_cases": self.n_cases,
            "largest": [_plain(one) for one in self.modules[:1]],
            "above_a_tenth_of_float16": [_plain(one) for one in self.large],
        }


def find_ranges(part: Part) -> Ranges | None:
    """Run a part's own cases once more with PyTorch, and look at what every module answers.

    Returns:
        What was found; ``None`` if the part has no cases of its own: random ones say nothing about ranges.

    Raises:
        SourceError: PyTorch itself cannot run a case.
    """
    if part.given is None:
        return None
    session, n_cases = TorchSession(part), 0
    largest: dict[str, float] = {}
    handles = list(_hooked(part.module, largest))
    try:
        for feeds in part.given():
            session.run(feeds)
            n_cases += 1
    finally:
        for handle in handles:
            handle.remove()
    modules = (ModuleRange(name, value) for name, value in largest.items())
    return Ranges(part.name, n_cases, tuple(sorted(modules, key=lambda one: (-one.largest, one.module))))


def _hooked(network: nn.Module, largest: dict[str, float]) -> Iterator[Any]:
    for name, module in network.named_modules():

        def note(_: nn.Module, __: Any, answer: Any, name: str = name or "the whole") -> None:
            for tensor in _floats(answer):
                largest[name] = max(largest.get(name, 0.0), _magnitude(tensor))

        yield module.register_forward_hook(note)


def _magnitude(tensor: Tensor) -> float:
    """Return the largest magnitude; the least number of the type is a mask, in float16 it is another one."""
    numbers = tensor[tensor != torch.finfo(tensor.dtype).min]
    value = float(numbers.abs().max()) if numbers.numel() else 0.0
    return value if math.isfinite(value) else math.inf


def _floats(answer: Any) -> Iterable[Tensor]:
    """Return the tensors of floats in what a module answers."""
    if isinstance(answer, Tensor):
        return [answer] if answer.is_floating_point() and answer.numel() else []
    values = answer.values() if isinstance(answer, dict) else answer
    if not isinstance(answer, dict | tuple | list):
        return []
    return [tensor for value in values for tensor in _floats(value)]


def _plain(one: ModuleRange) -> dict[str, Any]:
    value = one.largest if math.isfinite(one.largest) else "infinite"
    return {"module": one.module, "largest": value}
