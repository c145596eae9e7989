"""What goes into a graph and comes out of it: declared by a bundle, or read from the session."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from anyport.axes import Axis, parse_axis
from anyport.errors import SessionError, UsageError
from anyport.tensors import DTYPES, Signature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.bundle.manifest import PartEntry

_ONNX_TYPES: Final = {"double": "float64", "float": "float32"}


class Value(Protocol):
    """An input or output as onnxruntime describes it."""

    @property
    def name(self) -> str:
        """The name in the graph."""

    @property
    def type(self) -> str:
        """Such as ``tensor(float)``."""

    @property
    def shape(self) -> Sequence[int | str | None]:
        """Numbers, names, and ``None`` for a dynamic axis without a name."""


def signature_of_part(part: PartEntry) -> Signature:
    """Read the notation of a bundle's part."""
    return Signature(inputs=part.input_specs(), outputs=part.output_specs(), dims=part.dim_ranges())


def signature_of_values(inputs: Sequence[Value], outputs: Sequence[Value]) -> Signature:
    """Describe a graph by its own words; its dynamic axes have no range.

    Raises:
        SessionError: A tensor has a type that numpy cannot hold.
    """
    return Signature(
        inputs=tuple(_spec(value) for value in inputs), outputs=tuple(_spec(value) for value in outputs)
    )


def check_declared(declared: Signature, found: Signature, where: str) -> None:
    """Check that a graph is what its bundle says.

    Raises:
        SessionError: A name, a type or the axes of an input differ.
    """
    for kind, ours, theirs in (
        ("input", declared.inputs, found.inputs),
        ("output", declared.outputs, found.outputs),
    ):
        if {spec.name: spec.dtype for spec in ours} != {spec.name: spec.dtype for spec in theirs}:
            raise SessionError(
                f"the bundle declares the {kind}s {_listed(ours)}, the graph has {_listed(theirs)}",
                where=where,
            )
    by_name = {spec.name: spec for spec in found.inputs}
    for spec in declared.inputs:
        if _form(spec) != _form(by_name[spec.name]):
            raise SessionError(
                f"the bundle declares input '{spec.name}' as {spec}, the graph takes {by_name[spec.name]}",
                where=where,
            )


def _form(spec: TensorSpec) -> list[str | None]:
    """Return the fixed sizes; dynamic axes, whatever they are called, are ``None``."""
    return [axis.text if axis.is_fixed else None for axis in spec.axes]


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"'{spec.name}' {spec}" for spec in specs)


def _spec(value: Value) -> TensorSpec:
    element = value.type.removeprefix("tensor(").removesuffix(")")
    dtype = _ONNX_TYPES.get(element, element)
    if not value.type.startswith("tensor(") or dtype not in DTYPES:
        raise SessionError(
            f"'{value.name}' has the type {value.type}, which anyport cannot feed",
            do=f"rewrite the graph to take and give {', '.join(DTYPES)}",
        )
    axes = tuple(_axis(size, value.name, i) for i, size in enumerate(value.shape))
    return TensorSpec(value.name, dtype, axes)


def _axis(size: int | str | None, tensor_name: str, place: int) -> Axis:
    """Return the axis; one without a name, or with one that is no notation, gets a name of its own."""
    own_name = re.sub(r"\W", "_", f"{tensor_name}_{place}")
    own_name = own_name if own_name[0].isalpha() else f"_{own_name}"
    if size is None:
        return Axis(own_name, frozenset({own_name}))
    try:
        return parse_axis(str(size), tensor_name)
    except UsageError:
        return Axis(own_name, frozenset({own_name}))
