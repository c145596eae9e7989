"""A module runs with weights that are read when an operator needs them, and are gone when it has ended.

So PyTorch's own program answers for a model that no memory would hold: what is held is the largest weight,
and the activations. Nothing of the module is changed; its own weights may be on the meta device, or fake.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from anyport.errors import SourceError
from anyport.source.adapter import tensors_from
from anyport.source.float64 import Float64Mode, NoTwinError
from anyport.source.merging import as_torch
from anyport.source.running import TorchSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

    from anyport.recipe import Part
    from anyport.source.merging import LazyWeight

_FLOATS: Final = frozenset({torch.float16, torch.bfloat16, torch.float32})


class StreamedWeights(TorchFunctionMode):
    """While it is entered, every operator that is given a weight of the module is given its numbers.

    Args:
        module: Whose parameters and buffers are meant, by identity.
        weights: Name in the module -> how it is read. Of those that have none the module's own are taken.
        twin: Runs the operators in float64, and is paused while a weight is read; ``None``: in float32.

    Raises:
        SourceError: A weight of the module has no numbers, and none are stored.
    """

    def __init__(
        self, module: nn.Module, weights: Mapping[str, LazyWeight], twin: Float64Mode | None = None
    ) -> None:
        super().__init__()
        self._twin = twin
        self._dtype = torch.float32 if twin is None else torch.float64
        self._weights: dict[int, tuple[Tensor, LazyWeight]] = {}
        for name, tensor in named_weights(module):
            if name in weights:
                self._weights[id(tensor)] = tensor, weights[name]  # held, so that the id stays its own
        lost = [n for n, t in named_weights(module) if t.is_meta and id(t) not in self._weights]
        if lost:
            raise SourceError(f"'{lost[0]}' is neither in the checkpoint nor made by the module")

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operator, or answer what a weight says of itself."""
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__" and args and id(args[0]) in self._weights:
            return self._attribute(func, args[0])
        if name in {"__get__", "__set__"}:
            return func(*args, **given)
        return func(*tree_map(self._numbers, args), **tree_map(self._numbers, given))

    def _attribute(self, func: Any, weight: Tensor) -> Any:
        """Say where and of what type a weight will be, and read it for what needs its numbers."""
        asked = getattr(func.__self__, "__name__", "")
        if asked == "device":
            return torch.device("cpu")
        if asked == "dtype":
            return self._dtype if weight.dtype.is_floating_point else weight.dtype
        if asked in {"data", "T", "mT"}:
            return func(self._numbers(weight))
        return func(weight)

    def _numbers(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or id(value) not in self._weights:
            return value
        own, lazy = self._weights[id(value)]
        with self._as_written():
            tensor = as_torch(lazy.read(), lazy.dtype)
            return tensor.to(self._dtype if own.dtype.is_floating_point else own.dtype)

    @contextmanager
    def _as_written(self) -> Iterator[None]:
        if self._twin is None:
            yield
            return
        self._twin.is_paused = True
        try:
            yield
        finally:
            self._twin.is_paused = False


def named_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer under each of its names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def weights_inside(
    module: nn.Module, home: nn.Module, weights: Mapping[str, LazyWeight]
) -> dict[str, LazyWeight]:
    """Return how each weight of a module is read, for weights that are named as a module inside it has them.

    Args:
        module: Such as that of a part.
        home: The module itself, or the one inside it that a checkpoint is of.
        weights: Name in ``home`` -> how it is read.
    """
    own = {id(tensor): weights[name] for name, tensor in named_weights(home) if name in weights}
    return {name: own[id(tensor)] for name, tensor in named_weights(module) if id(tensor) in own}


def run_streamed(
    module: nn.Module, weights: Mapping[str, LazyWeight], run: Callable[[], Any], *, double: bool = False
) -> Any:
    """Run something of a module in float32, or in float64, with its weights streamed.

    Args:
        module: Whose weights they are.
        weights: Name in the module -> how it is read.
        run: Calls the module, or modules inside it; it may go on between inputs of any float type.
        double: In float64, operators that force a smaller type included.

    Returns:
        What ``run`` returns.

    Raises:
        NoTwinError: It cannot be run in float64.
    """
    if not double:
        with torch.no_grad(), StreamedWeights(module, weights):
            return run()
    twin = Float64Mode()
    try:
        with torch.no_grad(), StreamedWeights(module, weights, twin), twin:
            return run()
    except NoTwinError:
        raise
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as err:
        raise NoTwinError(str(err)) from err


def lifted(value: Any) -> Any:
    """Return what holds tensors with its floats in float64."""
    return tree_map(
        lambda one: one.double() if isinstance(one, Tensor) and one.dtype in _FLOATS else one, value
    )


class StreamedSession(TorchSession):
    """A part run by PyTorch, with weights that are read when they are needed.

    Args:
        part: Its own weights are not used.
        weights: Name in the part's module -> how it is read.
    """

    def __init__(self, part: Part, weights: Mapping[str, LazyWeight]) -> None:
        super().__init__(part)
        self._weights = weights

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return output name -> array, as `TorchSession.run` does."""
        with StreamedWeights(self._part.module, self._weights):
            return super().run(feeds)

    def run_float64(self, feeds: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
        """Return the answers in float64, and how they were found.

        Raises:
            NoTwinError: The module cannot be run in float64.
        """
        tensors = lifted(tensors_from([feeds[spec.name] for spec in self.inputs]))
        outputs = run_streamed(self._part.module, self._weights, lambda: self._adapter(*tensors), double=True)
        named = {spec.name: one.numpy() for spec, one in zip(self.outputs, outputs, strict=True)}
        return named, "PyTorch float32 against float64, streamed"
