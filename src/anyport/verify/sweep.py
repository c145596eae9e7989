"""Which inputs a comparison tries: planned first, printed, bounded, the same for the same seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.cases import Case, Constant, Fill, Normal, Padding, Stored, Uniform, make_array
from anyport.errors import UsageError
from anyport.tensors import check_feeds
from anyport.verify.sizes import SizePlan, SweepSettings, plan_sizes, sizes_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.cases import CaseKind
    from anyport.tensors import Dim, TensorSpec

_BASE_ROLE: Final = "random 1"
# Saturates what can saturate: exp overflows float32 at 89, and values reach 105. At 1000, saturated deep
# networks jump with the rounding of their first layer: 5 of 200 clean ones failed, at 30 none.
_EXTREME_SCALE: Final = 30.0
_USUAL_INPUTS: Final = 8  # more than that, such as the keys and values of a decoder, have cases of their own
_N_TRIES: Final = 16  # other seeds, until an input differs from the first random case


@dataclass(frozen=True, slots=True)
class CasePlan:
    """The cases of a comparison, in order.

    Attributes:
        cases: What will be run.
        dropped: What will not, and why, in words.
    """

    cases: tuple[Case, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        """Return one line for the whole, one per case, one per thing dropped."""
        lines = [describe_cases(self.cases)]
        lines += [f"  {case.kind:<8}  {case.name}" for case in self.cases]
        lines += [f"  dropped   {text}" for text in self.dropped]
        return "\n".join(lines)


def describe_cases(cases: Sequence[Case]) -> str:
    """Return ``14 cases, batch 1, 2, 3, 5, 64``."""
    sizes: dict[str, set[int]] = {}
    for case in cases:
        for name, size in case.sizes.items():
            sizes.setdefault(name, set()).add(size)
    parts = [f"{name} {', '.join(str(n) for n in sorted(found))}" for name, found in sizes.items()]
    noun = "case" if len(cases) == 1 else "cases"
    return f"{len(cases)} {noun}" + (f", {'; '.join(parts)}" if parts else "")


def typical_case(
    name: str, feeds: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec], dims: Mapping[str, Dim]
) -> Case:
    """Make a case of the user's own arrays.

    >>> from anyport.tensors import tensor
    >>> typical_case("photo", {"x": np.zeros((1, 3), np.float32)}, [tensor("x", "float32[1, 3]")], {}).kind
    'typical'

    Raises:
        InputError: The arrays do not fit the inputs.
    """
    sizes = check_feeds(feeds, inputs, dims)
    stored = {f"{name}/{spec.name}": feeds[spec.name] for spec in inputs}
    fills: dict[str, Fill] = {spec.name: Stored(f"{name}/{spec.name}") for spec in inputs}
    return Case(name, "typical", sizes, fills, stored)


def plan_cases(
    inputs: Sequence[TensorSpec],
    dims: Mapping[str, Dim],
    settings: SweepSettings,
    given: Sequence[Case] = (),
    outputs: Sequence[TensorSpec] = (),
) -> CasePlan:
    """Plan the cases of a comparison; the order below is the priority under ``settings.max_cases``.

    1. The user's own (never more than half of ``max_cases``, where others wait).
    2. Three random cases at small sizes, and one for each input in which it alone differs: without these
       nothing can be said about the power of the verdict, so they are planned whatever the limit is.
    3. Masks: a fully padded row, all ones, left padded, all zeros. Elsewhere masks are padded at the right.
    4. Sizes: all unseen by the export, all largest, all least; then each dim alone: unseen twice, largest,
       least, middle.
    5. Random inputs of a tenth and of four times the scale.
    6. Constants: zero, the least and the largest of a range; extreme values.

    Cases with equal sizes and inputs are planned once, under their first name.

    Raises:
        UsageError: A whole-number input has no range, an axis has no dim, or nothing fits the limits.
        InputError: A given case does not fit the inputs.
    """
    sizes = plan_sizes(inputs, dims, settings, outputs)
    filler = _Filler(tuple(inputs), settings.seed)
    filler.check()
    needed = _random_cases(filler, sizes.base)
    made = [*needed, *_mask_cases(filler, sizes.base, dims)]
    made += [filler.case(case.name, case.kind, case.sizes, filler.ordinary()) for case in sizes.cases]
    made += _value_cases(filler, sizes.base)
    own = _checked(given, inputs, dims)
    bound = _Bound(settings.max_cases, len(inputs), len(_distinct(needed, own)))
    return bound.applied(own, _distinct(made, own), sizes)


@dataclass(frozen=True, slots=True)
class _Filler:
    """Fills the inputs of one part, each from its own seed."""

    inputs: tuple[TensorSpec, ...]
    seed: int

    def check(self) -> None:
        for spec in self.inputs:
            if not spec.is_float and not spec.is_mask and spec.low is None:
                raise UsageError(
                    f"input '{spec.name}' is {spec}: nothing says which whole numbers it takes",
                    do=f'write the least and the largest, such as {spec.name} = "{spec} 0..30521"',
                )

    def fill(self, spec: TensorSpec, role: str, scale: float = 1.0) -> Fill:
        # 48 bits: exact in the JSON numbers of any language
        digest = hashlib.blake2b(f"{self.seed}/{role}/{spec.name}".encode(), digest_size=6).digest()
        seed = int.from_bytes(digest, "big")
        if spec.is_mask:
            return Padding(seed)
        if spec.low is None or spec.high is None:
            return Normal(seed, scale)
        return Uniform(seed, spec.low, spec.high)

    def ordinary(self, role: str = _BASE_ROLE, scale: float = 1.0) -> dict[str, Fill]:
        return {spec.name: self.fill(spec, role, scale) for spec in self.inputs}

    def case(self, name: str, kind: CaseKind, sizes: Mapping[str, int], fills: Mapping[str, Fill]) -> Case:
        return Case(name, kind, dict(sizes), dict(fills), {})


def _random_cases(filler: _Filler, base: Mapping[str, int]) -> list[Case]:
    names = [_BASE_ROLE, "random 2", "random 3"]
    cases = [filler.case(name, "random", base, filler.ordinary(name)) for name in names]
    for spec in filler.inputs:
        fills = filler.ordinary() | {spec.name: _another(filler, spec, base)}
        cases.append(filler.case(f"only {spec.name} differs", "random", base, fills))
    return cases


def _another(filler: _Filler, spec: TensorSpec, base: Mapping[str, int]) -> Fill:
    """Return a fill whose array differs from that of the first random case."""
    shape = spec.shape(base)
    usual = make_array(filler.fill(spec, _BASE_ROLE), shape, spec.dtype)
    # the role "random 2" first: with one input this is that case, and is planned once
    tries = [filler.fill(spec, f"random {number}") for number in range(2, _N_TRIES)]
    for fill in (*tries, Constant(0), Constant(1)):
        if not np.array_equal(make_array(fill, shape, spec.dtype), usual):
            return fill
    return tries[0]


def _mask_cases(filler: _Filler, base: Mapping[str, int], dims: Mapping[str, Dim]) -> list[Case]:
    masks = [spec for spec in filler.inputs if spec.is_mask and spec.axes]
    if not masks:
        return []
    usual = filler.ordinary()
    seeds = {spec.name: fill.seed for spec in masks if isinstance(fill := usual[spec.name], Padding)}
    empty: dict[str, Fill] = {name: Padding(seed, empty_row=True) for name, seed in seeds.items()}
    left: dict[str, Fill] = {name: Padding(seed, left=True) for name, seed in seeds.items()}
    ones: dict[str, Fill] = dict.fromkeys(seeds, Constant(1))
    zeros: dict[str, Fill] = dict.fromkeys(seeds, Constant(0))
    rows = _two_rows(masks, base, dims)
    return [
        filler.case("mask with a fully padded row", "boundary", rows, usual | empty),
        filler.case("mask of ones", "random", base, usual | ones),
        filler.case("mask padded at the left", "random", base, usual | left),
        filler.case("mask of zeros", "boundary", base, usual | zeros),
    ]


def _two_rows(
    masks: Sequence[TensorSpec], base: Mapping[str, int], dims: Mapping[str, Dim]
) -> dict[str, int]:
    """Return the base sizes with a batch of at least two, so that one row is padded and one is not."""
    sizes = dict(base)
    for spec in masks:
        name = spec.axes[0].name
        if name is not None and sizes[name] == 1:
            sizes[name] = min(max(2, dims[name].low, dims[name].step), dims[name].high)
    return sizes


def _value_cases(filler: _Filler, base: Mapping[str, int]) -> list[Case]:
    usual = filler.ordinary()
    free = [spec for spec in filler.inputs if not spec.is_mask]
    ranged = [spec for spec in free if spec.low is not None and spec.high is not None]
    # a range that leaves zero out keeps its ordinary values
    zeros = {s.name: Constant(0) for s in free if s.low is None or s.low <= 0 <= (s.high or 0)}
    cases = [
        filler.case("scale 0.1", "random", base, filler.ordinary("scale 0.1", 0.1)),
        filler.case("scale 4", "random", base, filler.ordinary("scale 4", 4.0)),
        filler.case("zeros", "boundary", base, usual | zeros),
        filler.case("least values", "boundary", base, usual | {s.name: _constant(s, s.low) for s in ranged}),
        filler.case("most values", "boundary", base, usual | {s.name: _constant(s, s.high) for s in ranged}),
        filler.case("extreme values", "boundary", base, filler.ordinary("extreme", _EXTREME_SCALE)),
    ]
    has_scale = any(isinstance(fill, Normal) for fill in usual.values())
    return [case for case in cases if has_scale or not case.name.startswith(("scale", "extreme"))]


def _constant(spec: TensorSpec, value: float | None) -> Constant:
    # a whole number is written as one: 30521, not 30521.0
    return Constant(value if spec.is_float or value is None else int(value))  # type: ignore[arg-type]


def _checked(given: Sequence[Case], inputs: Sequence[TensorSpec], dims: Mapping[str, Dim]) -> list[Case]:
    names: set[str] = set()
    for case in given:
        if case.name in names:
            raise UsageError(f"two of the given cases are called '{case.name}'")
        names.add(case.name)
        check_feeds(case.arrays(inputs), inputs, dims)
    return [replace(case, kind="typical") for case in given]


def _distinct(made: Sequence[Case], own: Sequence[Case]) -> list[Case]:
    taken = {case.name for case in own}
    distinct: dict[object, Case] = {}
    for case in made:
        key = (tuple(sorted(case.sizes.items())), tuple(sorted(case.fills.items(), key=lambda item: item[0])))
        name = case.name if case.name not in taken else f"{case.name} (planned)"
        distinct.setdefault(key, replace(case, name=name))
    return list(distinct.values())


@dataclass(frozen=True, slots=True)
class _Bound:
    """How many cases there may be.

    Attributes:
        max_cases: As the settings say.
        n_inputs: Of the part.
        n_needed: So many of the planned ones stay, whatever the bound; they are the first.
    """

    max_cases: int
    n_inputs: int
    n_needed: int

    def applied(self, own: list[Case], made: list[Case], sizes: SizePlan) -> CasePlan:
        limit = self.max_cases + max(0, self.n_inputs - _USUAL_INPUTS)
        n_own = min(len(own), max(limit - len(made), (self.max_cases + 1) // 2))
        n_made = max(limit - n_own, self.n_needed)
        dropped = [f"{case.name}: above max_cases = {limit}" for case in (*own[n_own:], *made[n_made:])]
        return CasePlan((*own[:n_own], *made[:n_made]), (*sizes.notes, *dropped))


__all__ = ["CasePlan", "SweepSettings", "describe_cases", "plan_cases", "sizes_text", "typical_case"]
