"""Modules that are made without their weights: as large as they may be, they take no memory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def weightless() -> Iterator[None]:
    """Let modules that are made inside have parameters on torch's meta device, and buffers with numbers.

    A weight is there for an instant, unwritten: the system gives it no memory.

    Example::

        with weightless():
            module = make()
    """
    register = nn.Module.register_parameter

    def register_empty(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:  # one that is tied stays what it is
            empty = torch.empty_like(parameter, device="meta")
            parameter = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        register(self, name, parameter)

    nn.Module.register_parameter = register_empty  # type: ignore[method-assign, assignment]  # torch offers no hook
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]  # as it was
