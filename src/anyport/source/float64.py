"""The float64 twin of a float32 module, without a second copy of its weights.

While a module runs, its own weights are float64; they are lifted as it starts and given back as it ends,
so the extra memory is that of the modules on the way, not of the model. A dispatch mode lifts every other
float operand, and every wish for a smaller float type. So modules that force float32 inside (a softmax, a
norm) have a twin as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch.utils.hooks import RemovableHandle

_SMALLER: Final = frozenset({torch.float32, torch.float16, torch.bfloat16})


class NoTwinError(Exception):
    """The module writes float32 results where float64 ones cannot follow."""


@dataclass(slots=True)
class _Count:
    n_lifted_casts: int = 0


class Float64Mode(TorchDispatchMode):
    """Run the operators below in float64, whatever float type they were written for.

    Attributes:
        count: How many explicit casts to a smaller float type were lifted.
        is_paused: Operators run as they are written: whoever reads weights meanwhile says so.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = _Count()
        self.is_paused = False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operator with its float operands lifted.

        Raises:
            NoTwinError: The operator writes into a float32 tensor.
        """
        given = dict(kwargs or {})
        if self.is_paused:
            return func(*args, **given)
        self._note_cast(args, given)
        for place, argument in enumerate(func._schema.arguments):  # noqa: SLF001  (no public way)
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            target = args[place] if place < len(args) else given.get(argument.name)
            if isinstance(target, Tensor) and target.dtype in _SMALLER:
                raise NoTwinError(f"{func} writes into a {target.dtype} tensor")
        return func(*tree_map(_lift, args), **tree_map(_lift, given))

    def _note_cast(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        wish = kwargs.get("dtype")
        if wish in _SMALLER and args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            self.count.n_lifted_casts += 1


class _Weights:
    """Lends float64 weights to each module for as long as it runs; modules inside modules may share some."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        # taken before the dispatch mode is on, which would lift these as well; nothing is copied
        self._original = {id(w): (w, w.data) for m in root.modules() for w in _own_weights(m)}
        self._n_users: dict[int, int] = dict.fromkeys(self._original, 0)
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> None:
        for module in self._root.modules():
            self._hooks.append(module.register_forward_pre_hook(self._lift))
            self._hooks.append(module.register_forward_hook(self._give_back, always_call=True))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for weight, original in self._original.values():
            weight.data = original

    def _lift(self, module: nn.Module, _inputs: object) -> None:
        for weight in _own_weights(module):
            self._n_users[id(weight)] += 1
            if weight.dtype in _SMALLER:
                weight.data = self._original[id(weight)][1].to(torch.float64)

    def _give_back(self, module: nn.Module, _inputs: object, _outputs: object) -> None:
        for weight in _own_weights(module):
            self._n_users[id(weight)] -= 1
            if self._n_users[id(weight)] == 0:
                weight.data = self._original[id(weight)][1]


def _own_weights(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def run_in_float64(module: nn.Module, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], str]:
    """Run a module in float64.

    Args:
        module: Returns a tuple of tensors; its weights are the same before and after.
        tensors: Its inputs, by position.

    Returns:
        Its outputs, and how they came about (for the verdict).

    Raises:
        NoTwinError: It cannot be lifted.
    """
    mode = Float64Mode()
    try:
        with torch.no_grad(), _Weights(module), mode:
            outputs = tuple(module(*(_lift(tensor) for tensor in tensors)))
    except NoTwinError:
        raise
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as err:
        raise NoTwinError(str(err)) from err
    n_lifted = mode.count.n_lifted_casts
    how = "PyTorch float32 against float64"
    return outputs, how + (f", {n_lifted} casts to a smaller float lifted" if n_lifted else "")


def _lift(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in _SMALLER:
        return value.to(torch.float64)
    if isinstance(value, torch.dtype) and value in _SMALLER:
        return torch.float64
    return value
