"""Which weights the outputs of a part depend on, found on torch's meta device: what its graph will keep.

A module may compute what nobody asks for, such as the text branch of the last block of Qwen-Image: the
weights of that are read when PyTorch runs, and are not in the graph.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anyport.source.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.recipe import Part

SCALAR: Final = torch.ops.aten._local_scalar_dense.default  # noqa: SLF001  (what .item() and bool() become)


def on_meta(part: Part, sizes: Mapping[str, int]) -> list[Tensor]:
    """Return inputs of a part without numbers."""
    return [
        torch.empty(spec.shape(sizes), dtype=getattr(torch, spec.dtype), device="meta")
        for spec in part.signature.inputs
    ]


def needed_weights(part: Part, sizes: Mapping[str, int]) -> tuple[tuple[Tensor, ...], frozenset[int]]:
    """Return the parameters and buffers that the outputs of a part depend on, each once.

    Args:
        part: Its module is on the meta device.
        sizes: Of its named axes; any do.

    Returns:
        They, and the ids of those that a graph keeps transposed: factors of products with more than two axes.
        For two axes ONNX has an operator with PyTorch's own layout.
    """
    own = list({id(one): one for one in (*part.module.parameters(), *part.module.buffers())}.values())
    trail = _Trail(own)
    turned: set[int] = set()
    with ExitStack() as stack, torch.no_grad():
        for module in part.module.modules():
            if isinstance(module, nn.Linear):
                stack.callback(module.register_forward_pre_hook(partial(_see, turned)).remove)
        with trail:
            outputs = Adapter(part)(*on_meta(part, sizes))
    found = trail.behind(outputs)
    return tuple(one for place, one in enumerate(own) if found >> place & 1), frozenset(turned)


def _see(turned: set[int], module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if inputs and inputs[0].ndim > 2:  # noqa: PLR2004  (rows and columns)
        turned.add(id(module.weight))


class _Trail(TorchDispatchMode):
    """Notes for each result which weights it was computed from: one bit for each weight.

    Tensors are told apart by what they are views of: what is written into a view is in all of them.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self._marks: defaultdict[int, int] = defaultdict(int)
        self._held: list[Tensor] = list(weights)  # so that no place is given to another tensor
        for place, weight in enumerate(weights):
            self._marks[_place(weight)] |= 1 << place

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 -- torch's own signature
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 -- torch's own signature
        """Run one operator, which on the meta device costs nothing."""
        if func is SCALAR:
            return False  # as where the work is counted
        given = dict(kwargs or {})
        answer = func(*args, **given)
        read = [leaf for leaf in tree_leaves((args, given)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]
        found = self.behind(read)
        if found:
            changed = read if func._schema.is_mutable else []  # noqa: SLF001  (no public way)
            for tensor in (*written, *changed):
                self._marks[_place(tensor)] |= found
                self._held.append(tensor)
        return answer

    def behind(self, tensors: Sequence[Tensor]) -> int:
        """Return the bits of the weights that these were computed from."""
        found = 0
        for tensor in tensors:
            found |= self._marks.get(_place(tensor), 0)
        return found


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001  (no public way)
