"""The inputs of a measurement: sizes that the user asks for, values from the plan that proves the model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from anyport.errors import UsageError, did_you_mean
from anyport.tensors import Dim
from anyport.verify import SweepSettings, plan_cases
from anyport.verify.sizes import middle_size, sizes_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anyport.cases import Case
    from anyport.tensors import Signature, TensorSpec

_MAX_DEFAULT_BATCH: Final = 32
_UNBOUNDED: Final = 1 << 62  # sizes are the user's own here; the sweep's limit is not


def axes_of(inputs: Iterable[TensorSpec]) -> list[str]:
    """Return the names of the dynamic axes, in the order in which they appear."""
    names = [name for spec in inputs for name in spec.dynamic_axes().values()]
    return list(dict.fromkeys(names))


def batch_axis(inputs: Iterable[TensorSpec]) -> str | None:
    """Return the name of the first axis of every input, if it is one name and no input has it elsewhere."""
    specs = [spec for spec in inputs if spec.axes]
    firsts = {spec.axes[0].name for spec in specs}
    if len(firsts) != 1 or None in firsts:
        return None
    name = firsts.pop()
    is_first_only = all(list(spec.dynamic_axes().values()).count(name or "") == 1 for spec in specs)
    return name if is_first_only else None


def choose_sizes(signature: Signature, asked: Mapping[str, int]) -> dict[str, int]:
    """Return the size of every dynamic axis: as asked; else 1 (or the least) for the batch, the middle else.

    Latency is asked for one; throughput goes through the batches anyway.

    Raises:
        UsageError: A size is outside its range, or an axis has neither a range nor a size.
    """
    batch = batch_axis(signature.inputs)
    sizes: dict[str, int] = {}
    for name in axes_of(signature.inputs):
        known = signature.dims.get(name)
        if name in asked:
            sizes[name] = _checked(name, asked[name], known)
        elif known is not None:
            sizes[name] = known.low if name == batch else middle_size(known)
        elif name == batch:
            sizes[name] = 1
        else:
            raise UsageError(
                f"axis '{name}' has no range of sizes, and no size was asked for", do=f"--size {name}=128"
            )
    return sizes


def check_asked(asked: Mapping[str, int], signatures: Iterable[Signature]) -> None:
    """Check that every size that was asked for is one of some axis.

    Raises:
        UsageError: It is not.
    """
    known = {name for signature in signatures for name in axes_of(signature.inputs)}
    for name in asked:
        if name not in known:
            raise UsageError(f"--size '{name}' is no dynamic axis of any input{did_you_mean(name, known)}")


def default_batches(batch: str, dims: Mapping[str, Dim]) -> tuple[int, ...]:
    """Return the powers of two that the batch may have, up to 32; its least size if there is none."""
    powers = [2**k for k in range(_MAX_DEFAULT_BATCH.bit_length())]
    known = dims.get(batch)
    if known is None:
        return tuple(powers)
    return tuple(size for size in powers if known.holds(size)) or (known.low,)


def bench_case(signature: Signature, sizes: Mapping[str, int], seed: int = 0) -> Case:
    """Return ordinary inputs of these sizes: the first random case of the verification's plan.

    Raises:
        UsageError: A whole-number input has no range of values.
    """
    # a fill is a recipe for any size, so that the plan may be made at the least ones
    least = {name: Dim(name, 1, 2) for name in sizes}
    settings = SweepSettings(max_case_bytes=_UNBOUNDED, max_cases=1, seed=seed)
    case = plan_cases(signature.inputs, least, settings).cases[0]
    return replace(case, name=sizes_text(sizes) or "fixed sizes", sizes=dict(sizes))


def _checked(name: str, size: int, known: Dim | None) -> int:
    if size < 1:
        raise UsageError(f"--size {name}={size}: the least is 1")
    if known is not None and not known.holds(size):
        raise UsageError(f"--size {name}={size}: the model takes {known}")
    return size
