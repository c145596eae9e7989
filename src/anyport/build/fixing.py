"""``--fix batch=1,height=224``: a model whose named axes become numbers, before anything is exported.

Runtimes for phones and accelerators want static shapes; all that follows (the axis contract, the comparison)
then holds for the model as it is fixed.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

from anyport.axes import Axis, parse_axis
from anyport.errors import UsageError, did_you_mean
from anyport.tensors import Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np

    from anyport.recipe import Model, Part
    from anyport.tensors import Dim, TensorSpec


def fix_axes(model: Model, sizes: Mapping[str, int]) -> Model:
    """Replace named axes by sizes, in every part and every tensor that has them.

    The user's own cases of other sizes are left out; `n_left_out` counts them.

    Raises:
        UsageError: No part has such an axis, or it may not have that size.
    """
    known = {name: dim for part in model.parts for name, dim in part.signature.dims.items()}
    for name, size in sizes.items():
        if name not in known:
            raise UsageError(f"--fix {name}={size}: there is no axis '{name}'{did_you_mean(name, known)}")
        _check_size(known[name], size)
    return replace(model, parts=tuple(_fixed_part(part, sizes) for part in model.parts)) if sizes else model


def _check_size(dim: Dim, size: int) -> None:
    if dim.holds(size):
        return
    nearest = min(max(round(size / dim.step) * dim.step, dim.low), dim.high)
    raise UsageError(
        f"--fix {dim.name}={size}: the axis takes {dim} (did you mean {nearest}?)",
        do="choose one of these sizes, or declare a wider dim",
    )


def _fixed_part(part: Part, sizes: Mapping[str, int]) -> Part:
    signature = part.signature
    fixed = Signature(
        inputs=tuple(_fixed_tensor(spec, sizes) for spec in signature.inputs),
        outputs=tuple(_fixed_tensor(spec, sizes) for spec in signature.outputs),
        dims={name: dim for name, dim in signature.dims.items() if name not in sizes},
    )
    given = None if part.given is None else of_fixed_sizes(part.given, fixed.inputs)
    return replace(part, signature=fixed, given=given)


def _fixed_tensor(spec: TensorSpec, sizes: Mapping[str, int]) -> TensorSpec:
    return replace(spec, axes=tuple(_fixed_axis(axis, sizes, spec.name) for axis in spec.axes))


def _fixed_axis(axis: Axis, sizes: Mapping[str, int], tensor_name: str) -> Axis:
    """Return a number where all names are fixed; else the expression with the fixed ones put in."""
    if not axis.names & sizes.keys():
        return axis
    if axis.names <= sizes.keys():
        return parse_axis(str(axis.size(sizes)), tensor_name)
    text = ast.unparse(_Put(sizes).visit(ast.parse(axis.text, mode="eval")))
    return parse_axis(text.replace(" ", ""), tensor_name)


class _Put(ast.NodeTransformer):
    """Puts sizes in the place of names."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Return the size, or the name where it stays free."""
        return ast.Constant(self._sizes[node.id]) if node.id in self._sizes else node


def of_fixed_sizes(
    given: Callable[[], Iterable[Mapping[str, np.ndarray]]], inputs: tuple[TensorSpec, ...]
) -> Callable[[], Iterable[Mapping[str, np.ndarray]]]:
    """Leave out the user's own cases whose axes are not those that are fixed."""

    def fitting() -> Iterator[Mapping[str, np.ndarray]]:
        for feeds in given():
            if all(_has_fixed_sizes(spec, feeds) for spec in inputs):
                yield feeds

    return fitting


def _has_fixed_sizes(spec: TensorSpec, feeds: Mapping[str, np.ndarray]) -> bool:
    """Say whether an array has the fixed sizes; what else is wrong with it is found later, and said."""
    shape = getattr(feeds.get(spec.name), "shape", ())
    return len(shape) != len(spec.axes) or all(
        not axis.is_fixed or axis.size({}) == size for axis, size in zip(spec.axes, shape, strict=True)
    )


def n_left_out(before: Model, after: Model) -> tuple[int, int]:
    """Return how many of the user's own cases are of other sizes than the fixed ones, and of how many."""
    n_before, n_after = (
        sum(1 for part in model.parts if part.given is not None for _ in part.given())
        for model in (before, after)
    )
    return n_before - n_after, n_before
