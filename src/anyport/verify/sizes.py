"""Which sizes of the named axes a sweep tries."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anyport.cases import CaseKind
    from anyport.tensors import Dim, TensorSpec

Sizes = dict[str, int]

_BASE_LENGTH: Final = (
    8  # a base size of anything but the batch is above this: rows of one or two hide padding
)
_UNSEEN_STEPS: Final = (1, 3)  # from the base size; a batch 1..64 is tried at 3 and 5
_MIB: Final = 2.0**20
# Answers are held in float32 and float64 at once; a layer may answer 24 times what it is given.
_ANSWER_MULTIPLE: Final = 4


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """How much a sweep may try.

    Attributes:
        max_case_bytes: The inputs of one case take at most this much, its answers four times as much.
        max_cases: At most this many cases, and one more for each input above the eighth. Three random ones,
            and one for each input in which it alone differs, are there in any case: these say whether an
            input is used at all.
        seed: Chooses the random inputs.
        seen_sizes: Dim name -> sizes that the export was traced with; two others are tried.
    """

    max_case_bytes: int = 64 * 2**20
    max_cases: int = 40
    seed: int = 0
    seen_sizes: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse limits under which nothing can be tried."""
        if self.max_case_bytes < 1 or self.max_cases < 1:
            raise UsageError(
                f"max_cases = {self.max_cases} and max_case_bytes = {self.max_case_bytes}: nothing is left"
            )


@dataclass(frozen=True, slots=True)
class SizedCase:
    """One set of sizes to try, under a name."""

    name: str
    kind: CaseKind
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class SizePlan:
    """The sizes to try, most telling first.

    Attributes:
        base: Small sizes, none of them the least: everything but the sizes is varied here.
        cases: The other sizes, in order of priority.
        notes: What could not be tried, in words.
    """

    base: Sizes
    cases: tuple[SizedCase, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """The inputs, their dims, and how many bytes one case may take.

    Attributes:
        inputs: Of the part.
        dims: Of the inputs.
        max_case_bytes: For the inputs.
        outputs: Those whose sizes follow from the inputs'.
        max_answer_bytes: For them.
    """

    inputs: tuple[TensorSpec, ...]
    dims: Mapping[str, Dim]
    max_case_bytes: int
    outputs: tuple[TensorSpec, ...]
    max_answer_bytes: int

    @classmethod
    def of(
        cls,
        inputs: Sequence[TensorSpec],
        dims: Mapping[str, Dim],
        max_case_bytes: int,
        outputs: Sequence[TensorSpec],
    ) -> Self:
        """Return the limits under which at least the smallest answers are tried, however large they are."""
        known = tuple(one for one in outputs if all(axis.names <= dims.keys() for axis in one.axes))
        least = n_bytes(known, {name: dim.low for name, dim in dims.items()})
        return cls(tuple(inputs), dims, max_case_bytes, known, max(_ANSWER_MULTIPLE * max_case_bytes, least))

    def hold(self, sizes: Mapping[str, int]) -> bool:
        """Say whether a case of these sizes may be tried."""
        return (
            n_bytes(self.inputs, sizes) <= self.max_case_bytes
            and n_bytes(self.outputs, sizes) <= self.max_answer_bytes
        )

    def between(self, low: Sizes, high: Sizes, n: int = 1024) -> Sizes:
        """Return the largest sizes on the way from ``low`` to ``high`` that may be tried; ``low`` may be."""
        least, most = 0, n
        while least < most:
            middle = (least + most + 1) // 2
            if self.hold(self._on_the_way(low, high, middle, n)):
                least = middle
            else:
                most = middle - 1
        return self._on_the_way(low, high, least, n)

    def _on_the_way(self, low: Sizes, high: Sizes, part: int, n: int) -> Sizes:
        return {
            name: low[name] + (high[name] - low[name]) * part // n // dim.step * dim.step
            for name, dim in self.dims.items()
        }


def n_bytes(specs: Iterable[TensorSpec], sizes: Mapping[str, int]) -> int:
    """Return how many bytes arrays of these sizes take."""
    return sum(
        int(np.prod(spec.shape(sizes), dtype=np.int64)) * np.dtype(spec.dtype).itemsize for spec in specs
    )


def plan_sizes(
    inputs: Sequence[TensorSpec],
    dims: Mapping[str, Dim],
    settings: SweepSettings,
    outputs: Sequence[TensorSpec] = (),
) -> SizePlan:
    """Choose the sizes to try.

    Raises:
        UsageError: A named axis has no dim, or not even the smallest inputs fit into ``max_case_bytes``.
    """
    used = _used_dims(inputs, dims)
    limits = SizeLimits.of(inputs, used, settings.max_case_bytes, outputs)
    least = {name: dim.low for name, dim in used.items()}
    if not limits.hold(least):
        raise UsageError(
            f"the smallest inputs take {n_bytes(limits.inputs, least) / _MIB:.3g} MiB, a case may take "
            f"{settings.max_case_bytes / _MIB:.3g} MiB",
            do="raise --max-case-bytes",
        )
    base = limits.between(least, {name: _base_size(dim, inputs) for name, dim in used.items()})
    unseen = {name: _unseen_sizes(dim, base[name], settings) for name, dim in used.items()}
    wanted = [*_together(limits, base, unseen), *_alone(limits, base, unseen)]
    fitting = tuple(case for case in wanted if limits.hold(case.sizes))
    too_large = [f"{case.name}: above max_case_bytes" for case in wanted if not limits.hold(case.sizes)]
    return SizePlan(base, fitting, (*_missing_unseen(unseen), *too_large))


def _used_dims(inputs: Sequence[TensorSpec], dims: Mapping[str, Dim]) -> dict[str, Dim]:
    """Return the dims of the inputs in the order in which they appear."""
    used: dict[str, Dim] = {}
    for spec in inputs:
        for name in sorted(frozenset(chain.from_iterable(axis.names for axis in spec.axes))):
            if name not in dims:
                raise UsageError(
                    f"axis '{name}' of input '{spec.name}' has no range of sizes",
                    do=f"declare it: --dim {name}=1..64",
                )
        for axis in spec.axes:
            used |= {name: dims[name] for name in sorted(axis.names) if name not in used}
    return used


def _base_size(dim: Dim, inputs: Sequence[TensorSpec]) -> int:
    """Return the first size above the least; above 8 unless it is the first axis everywhere (a batch)."""
    places = {place for spec in inputs for place, name in spec.dynamic_axes().items() if name == dim.name}
    floor = dim.low if places == {0} else max(dim.low, _BASE_LENGTH)
    return min((floor // dim.step + 1) * dim.step, dim.high)


def middle_size(dim: Dim) -> int:
    """Return the allowed size in the middle of a range."""
    return dim.low + (dim.n_sizes // 2) * dim.step


def _unseen_sizes(dim: Dim, base: int, settings: SweepSettings) -> tuple[int, ...]:
    """Return up to two sizes that the export never saw and that no other case tries."""
    taken = {dim.low, dim.high, middle_size(dim), base, *settings.seen_sizes.get(dim.name, frozenset())}
    first = [base + step * dim.step for step in _UNSEEN_STEPS]
    # past the first few hundred nothing is gained by looking on
    others = range(dim.low, min(dim.high, dim.low + 512 * dim.step) + 1, dim.step)
    free = [size for size in dict.fromkeys([*first, *others]) if dim.holds(size) and size not in taken]
    return tuple(free[:2])


def _missing_unseen(unseen: Mapping[str, tuple[int, ...]]) -> list[str]:
    return [
        f"{name}: {len(sizes)} of 2 sizes that the export never saw (the range has no more)"
        for name, sizes in unseen.items()
        if len(sizes) < 2  # noqa: PLR2004  (two are wanted)
    ]


def _together(limits: SizeLimits, base: Sizes, unseen: Mapping[str, tuple[int, ...]]) -> list[SizedCase]:
    if not base:
        return []
    all_unseen = {name: sizes[0] if sizes else base[name] for name, sizes in unseen.items()}
    least = {name: dim.low for name, dim in limits.dims.items()}
    most = {name: dim.high for name, dim in limits.dims.items()}
    fits = limits.hold(most)
    largest = most if fits else limits.between(least, most)
    suffix = "" if fits else ", the largest that fits"
    return [
        SizedCase(f"all unseen ({sizes_text(all_unseen)})", "random", all_unseen),
        SizedCase(f"all largest ({sizes_text(largest)}{suffix})", "boundary", largest),
        SizedCase(f"all least ({sizes_text(least)})", "boundary", least),
    ]


def _alone(limits: SizeLimits, base: Sizes, unseen: Mapping[str, tuple[int, ...]]) -> list[SizedCase]:
    """Return the cases with one dim at another size: first the unseen sizes of every dim, and so on."""
    cases: list[SizedCase] = []
    for number in (0, 1):
        for name, sizes in unseen.items():
            cases += [_one(base, name, size) for size in sizes[number : number + 1]]
    for name, dim in limits.dims.items():
        most = base | {name: dim.high}
        if limits.hold(most):
            cases.append(_one(base, name, dim.high, kind="boundary"))
        else:
            largest = limits.between(base, most)[name]
            cases.append(_one(base, name, largest, " (the largest that fits)", kind="boundary"))
    cases += [_one(base, name, dim.low, kind="boundary") for name, dim in limits.dims.items()]
    cases += [_one(base, name, middle_size(dim)) for name, dim in limits.dims.items()]
    return cases


def _one(base: Sizes, name: str, size: int, suffix: str = "", kind: CaseKind = "random") -> SizedCase:
    return SizedCase(f"{name}={size}{suffix}", kind, base | {name: size})


def sizes_text(sizes: Mapping[str, int]) -> str:
    """Return ``batch=2, height=384``."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())
