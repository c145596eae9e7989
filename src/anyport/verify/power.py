"""How much a comparison could see: outputs that hardly react to their inputs prove nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.cases import Stored
from anyport.verify.tolerance import MIN_INPUT_POWER, MIN_OUTPUT_POWER
from anyport.verify.verdict import Leg, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anyport.cases import Case
    from anyport.verify.reference import Answer, PartSpec
    from anyport.verify.ties import Link

# A sample of the positions of a large output can only make its spread look smaller: the verdict errs towards
# inconclusive, and forty cases keep at most 40 MiB of each output.
_MAX_SAMPLE: Final = 2**18

_DO_OUTPUT: Final = (
    "give inputs that the model answers differently ([cases] function = …), or load trained weights: "
    "freshly seeded ones often fade to a constant"
)
_DO_INPUT: Final = (
    "give cases in which this input matters ([cases] function = …), check its range under [inputs], or leave "
    "the input out of the graph"
)


@dataclass(frozen=True, slots=True)
class Power:
    """How far one output moved, or how far the outputs reacted to one input.

    Attributes:
        name: The output or input.
        ratio: In floors; infinite for whole numbers that changed.
        n_cases: Over how many cases (outputs) or pairs of cases (inputs).
        needed: The least ratio that proves something.
        reason: Why it is not enough; empty if it is.
    """

    name: str
    ratio: float
    n_cases: int
    needed: float
    reason: str


@dataclass(frozen=True, slots=True)
class _Entry:
    case: Case
    samples: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]
    floors: dict[str, float]


class PowerTape:
    """Keeps what power needs of the reference's answers, and nothing else.

    Only cases whose sizes occur more than once are kept, and of each output at most 2^18 elements.
    """

    def __init__(self, part: PartSpec, cases: Sequence[Case]) -> None:
        self._part = part
        counts: dict[tuple[tuple[str, int], ...], int] = defaultdict(int)
        for case in cases:
            counts[_sizes_key(case)] += 1
        self._shared = frozenset(key for key, n in counts.items() if n > 1)
        self._entries: list[_Entry] = []

    def keep(self, case: Case, answer: Answer) -> None:
        """Note the reference's answer to a case."""
        if _sizes_key(case) not in self._shared:
            return
        names = [spec.name for spec in self._part.outputs]
        samples = {name: _sample(answer.outputs[name]) for name in names}
        shapes = {name: answer.outputs[name].shape for name in names}
        floors = {name: answer.floors[name].max_abs for name in names if name in answer.floors}
        self._entries.append(_Entry(case, samples, shapes, floors))

    def outputs(self, links: Iterable[Link]) -> tuple[Power, ...]:
        """Return the power of each output; a choice has that of its score."""
        own = {spec.name: self._output_power(spec.name) for spec in self._part.outputs}
        scores = {link.choice: link.score for link in sorted(links, reverse=True)}
        return tuple(self._linked(own[name], scores.get(name), own) for name in own)

    def inputs(self, links: Iterable[Link]) -> tuple[Power, ...]:
        """Return the power of each input: the outputs' reaction to changing it alone."""
        choices = frozenset(link.choice for link in links)
        names = [spec.name for spec in self._part.inputs]
        pairs: dict[str, list[tuple[_Entry, _Entry]]] = {name: [] for name in names}
        for one, two in combinations(self._entries, 2):
            if _sizes_key(one.case) == _sizes_key(two.case):
                different = [name for name in names if not _same_input(one.case, two.case, name)]
                if len(different) == 1:
                    pairs[different[0]].append((one, two))
        return tuple(_input_power(name, pairs[name], choices) for name in names)

    def _linked(self, power: Power, score: str | None, own: dict[str, Power]) -> Power:
        if score is None:
            return power
        of_score = own[score]
        reason = of_score.reason and f"output '{power.name}' is the choice of '{score}': {of_score.reason}"
        return Power(power.name, of_score.ratio, of_score.n_cases, of_score.needed, reason)

    def _output_power(self, name: str) -> Power:
        groups: dict[tuple[int, ...], list[_Entry]] = defaultdict(list)
        for entry in self._entries:
            if entry.case.kind != "boundary":
                groups[entry.shapes[name]].append(entry)
        found = [(_spread(name, group), len(group)) for group in groups.values() if len(group) > 1]
        if not found:
            reason = f"no two cases have an output '{name}' of one shape, so nothing says that it reacts"
            return Power(name, 0.0, 0, MIN_OUTPUT_POWER, reason)
        ratio, n_cases = max(found)
        return Power(name, ratio, n_cases, MIN_OUTPUT_POWER, _weak_output(name, ratio, n_cases))


def _weak_output(name: str, ratio: float, n_cases: int) -> str:
    if ratio >= MIN_OUTPUT_POWER:
        return ""
    if ratio == 0.0:
        return f"output '{name}' is the same in {n_cases} different cases: a constant would pass"
    return (
        f"output '{name}' moves only {ratio:.3g} floors over {n_cases} cases, {MIN_OUTPUT_POWER:.0f} are "
        "needed: a wrong graph would pass"
    )


def _spread(name: str, group: Sequence[_Entry]) -> float:
    """Return the largest difference between any two answers, in the largest floor of the cases it is seen in.

    The most exact cases come first, and each further one is taken in only if that says more: one saturated
    case, whose floor is thousands of times that of the others, takes nothing away from what they show.
    """
    exact = sorted(group, key=lambda entry: entry.floors.get(name, 0.0))
    low = high = exact[0].samples[name].astype(np.float64)
    floors: list[float] = []
    best = 0.0
    for entry in exact:
        low, high = np.minimum(low, entry.samples[name]), np.maximum(high, entry.samples[name])
        finite = np.isfinite(low) & np.isfinite(high)
        floors += [entry.floors[name]] if name in entry.floors else []
        best = max(best, _in_floors(float(np.max(high[finite] - low[finite], initial=0.0)), floors))
    return best


def _in_floors(spread: float, floors: Sequence[float]) -> float:
    if not floors:  # whole numbers: any change is one
        return math.inf if spread > 0 else 0.0
    largest = max(floors)
    return spread / largest if math.isfinite(largest) else 0.0


def _input_power(name: str, pairs: Sequence[tuple[_Entry, _Entry]], choices: frozenset[str]) -> Power:
    if not pairs:
        reason = f"no two cases differ in input '{name}' alone, so nothing says that it is used"
        return Power(name, 0.0, 0, MIN_INPUT_POWER, reason)
    reactions = [
        _spread(output, pair)
        for pair in pairs
        for output in pair[0].samples
        if output not in choices and pair[0].shapes[output] == pair[1].shapes[output]
    ]
    ratio = max(reactions, default=0.0)
    if ratio >= MIN_INPUT_POWER:
        return Power(name, ratio, len(pairs), MIN_INPUT_POWER, "")
    reason = (
        f"no output reacts to input '{name}' by more than {ratio:.3g} floors, {MIN_INPUT_POWER:.0f} are "
        "needed: a graph that ignores it would pass"
    )
    return Power(name, ratio, len(pairs), MIN_INPUT_POWER, reason)


def _sizes_key(case: Case) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(case.sizes.items()))


def _same_input(one: Case, two: Case, name: str) -> bool:
    first, second = one.fills[name], two.fills[name]
    if isinstance(first, Stored) and isinstance(second, Stored):
        return np.array_equal(one.stored[first.key], two.stored[second.key])
    return first == second


def _sample(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)
    if flat.size <= _MAX_SAMPLE:
        return flat.copy()
    # evenly spread, and never in step with a power of two
    return flat[np.arange(_MAX_SAMPLE, dtype=np.int64) * flat.size // _MAX_SAMPLE].copy()


def power_leg(outputs: Sequence[Power], inputs: Sequence[Power]) -> Leg:
    """Return the leg: inconclusive as soon as one output or input says too little."""
    weak_outputs, weak_inputs = [p for p in outputs if p.reason], [p for p in inputs if p.reason]
    details = tuple(
        f"{kind} '{power.name}': {power.ratio:.3g} floors, {power.needed:.0f} needed"
        for kind, powers in (("output", outputs), ("input", inputs))
        for power in powers
    )
    weak = [*weak_outputs, *weak_inputs]
    if weak:
        more = f" (and {len(weak) - 1} more)" if len(weak) > 1 else ""
        reasons = tuple(power.reason for power in weak[1:])
        do = _DO_OUTPUT if weak_outputs else _DO_INPUT
        return Leg("power", Status.INCONCLUSIVE, weak[0].reason + more, (*reasons, *details), do)
    least_output = min((power.ratio for power in outputs), default=math.inf)
    least_input = min((power.ratio for power in inputs), default=math.inf)
    line = f"outputs move {least_output:.2g} floors or more, and react to each input by {least_input:.2g}"
    return Leg("power", Status.PASS, line, details)
