"""Floors of small outputs, taken over several cases.

The floor of a case is one float32 answer's distance from the exact one. Over thousands of elements that is
a fair sample of the rounding; over ten logits it may happen to be nearly zero, and a correct graph would
then be called wrong. So an output of up to `MAX_POOLED_ELEMENTS` elements is held against the larger of its
own floor and the quadratic mean over the cases whose float inputs are filled in the same way. A case that is
filled like no other borrows from the largest family, in proportion to its scale.

Measured: 100 random networks of eight layers with one output number, the candidate equal but for the order of
its sums. Without pooling and with the RMS rule on few numbers 34 of them failed, with both refinements none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from anyport.cases import Normal, Stored, Uniform
from anyport.verify.tolerance import MAX_POOLED_ELEMENTS, MIN_RMS_ELEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anyport.cases import Case, Fill
    from anyport.tensors import TensorSpec
    from anyport.verify.reference import Floor

_MIN_MEMBERS: Final = 3  # fewer are no better than one

Family = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FloorSample:
    """One measured floor: of which output, at which inputs, how large an output.

    Attributes:
        output: The name of the output.
        family: How the case's float inputs are filled.
        floor: As the reference measured it.
        scale_rms: RMS of the reference's output.
        n_elements: How many elements it has.
    """

    output: str
    family: Family
    floor: Floor
    scale_rms: float
    n_elements: int

    @property
    def counts(self) -> bool:
        """Whether it is pooled at all."""
        return 0 < self.n_elements <= MAX_POOLED_ELEMENTS and self.floor.is_finite


def family_of(case: Case, inputs: Sequence[TensorSpec]) -> Family:
    """Return how the float inputs of a case are filled, seeds left out."""
    return tuple(_fill_family(case.fills[spec.name]) for spec in inputs if spec.is_float)


def _fill_family(fill: Fill) -> str:
    if isinstance(fill, Normal):
        return f"normal {fill.scale!r}"
    if isinstance(fill, Uniform):
        return f"uniform {fill.low!r} {fill.high!r}"
    return "stored" if isinstance(fill, Stored) else repr(fill)


class FloorPool:
    """The floors of all cases, and what a small output is held against.

    >>> from anyport.verify.reference import Floor
    >>> samples = [FloorSample("y", (), Floor(error, error, "twin"), 1.0, 2) for error in (0.0, 1e-6, 1e-6)]
    >>> f"{FloorPool(samples).widen(samples[0]).max_abs:.2g}"
    '8.2e-07'
    """

    def __init__(self, samples: Iterable[FloorSample]) -> None:
        families: dict[tuple[str, Family], list[FloorSample]] = defaultdict(list)
        for sample in samples:
            if sample.counts:
                families[sample.output, sample.family].append(sample)
        self._families: Mapping[tuple[str, Family], list[FloorSample]] = families

    def widen(self, sample: FloorSample) -> Floor:
        """Return the floor that this output of this case is held against."""
        if not sample.counts:
            return sample.floor
        members = self._families[sample.output, sample.family]
        share = 1.0
        if len(members) < _MIN_MEMBERS:
            members = self._largest_family(sample.output)
            scale = _quadratic_mean(member.scale_rms for member in members)
            share = sample.scale_rms / scale if scale > 0 else 0.0
            # a handful of numbers may also be small by luck: then their scale says nothing
            share = max(share, 1.0) if sample.n_elements < MIN_RMS_ELEMENTS else share
        if len(members) < _MIN_MEMBERS:
            return sample.floor
        max_abs = share * _quadratic_mean(member.floor.max_abs for member in members)
        rms = share * _quadratic_mean(member.floor.rms for member in members)
        floor = sample.floor
        if max_abs <= floor.max_abs and rms <= floor.rms:
            return floor
        how = f"{floor.how}; pooled over {len(members)} cases, the output is small"
        return replace(floor, max_abs=max(max_abs, floor.max_abs), rms=max(rms, floor.rms), how=how)

    def _largest_family(self, output: str) -> list[FloorSample]:
        own = {family: members for (name, family), members in self._families.items() if name == output}
        return own[max(own, key=lambda family: (len(own[family]), family))]


def _quadratic_mean(values: Iterable[float]) -> float:
    found = list(values)
    largest = max(found, default=0.0)
    if largest == 0.0:
        return 0.0
    # fsum: the same whatever the order of the cases; scaled, because floors may be as small as 1e-38
    return largest * math.sqrt(math.fsum((value / largest) ** 2 for value in found) / len(found))
