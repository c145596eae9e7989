"""One line of the release list: its mark, the evidence, and what it is judged from."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.bundle import Bundle, GraphFile, Step
    from anyport.report.runs import Runs
    from anyport.runtime.graphfile import ModelFacts
    from anyport.verify import Verdict


class Mark(enum.Enum):
    """What a line says; the worst first."""

    FAIL = "FAIL"
    UNTESTED = "UNTESTED"
    PASS = "PASS"  # noqa: S105  (no password)
    NOT_APPLICABLE = "NOT APPLICABLE"


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        mark: What it says.
        evidence: What was read or run, with numbers.
        do: What helps, if it does not pass.
        name: What it is about.
    """

    mark: Mark
    evidence: str
    do: str = ""
    name: str = ""

    def named(self, name: str) -> Line:
        """Return the line under its name."""
        return replace(self, name=name)

    def to_json(self) -> dict[str, str]:
        """Return a plain dict."""
        return {"name": self.name, "status": self.mark.value, "evidence": self.evidence, "do": self.do}


@dataclass(frozen=True, slots=True)
class Checked:
    """One part of one variant, read and run.

    Attributes:
        bundle: It belongs to.
        graph: Its file.
        model: What the file computes.
        others: The same part in the other variants.
        steps: Variant -> what was done to this part.
        verdict: The proof, replayed here.
        runs: What its runs gave.
        whole: The proof of the whole task, replayed here with all parts; ``None`` if the bundle carries none.
    """

    bundle: Bundle
    graph: GraphFile
    model: ModelFacts
    others: Mapping[str, ModelFacts]
    steps: Mapping[str, tuple[Step, ...]]
    verdict: Verdict
    runs: Runs
    whole: Verdict | None = None

    @property
    def own_steps(self) -> tuple[Step, ...]:
        """What was done to this part in this variant."""
        return self.steps[self.graph.variant_name]

    @property
    def is_lossy(self) -> bool:
        """Whether the variant is proven by a metric instead of by equal answers."""
        return self.bundle.manifest.variants[self.graph.variant_name].metric is not None

    def steps_called(self, verb: str) -> tuple[Step, ...]:
        """Return the steps of this variant with a verb."""
        return tuple(step for step in self.own_steps if step.verb == verb)


Judge = Callable[[Checked], Line]


def unproven(checked: Checked) -> Line | None:
    """Return the line of what needs cases of a proof, if the bundle has none for this part."""
    if checked.runs.cases:
        return None
    entry = checked.bundle.manifest.variants[checked.graph.variant_name]
    if any(step.verb == "reweight" for step in entry.steps):
        do = "anyport reweight OLD.port WEIGHTS.safetensors -o NEW.port --against SOURCE"
    else:
        do = "anyport build, which records a proof"
    return untested(f"the proof has no case{f': {entry.note}' if entry.note else ''}", do)


def failed(evidence: str, do: str = "") -> Line:
    """Return a line that fails."""
    return Line(Mark.FAIL, evidence, do)


def passed(evidence: str) -> Line:
    """Return a line that passes."""
    return Line(Mark.PASS, evidence)


def untested(evidence: str, do: str = "") -> Line:
    """Return a line that nothing is known about."""
    return Line(Mark.UNTESTED, evidence, do)


def not_applicable(evidence: str) -> Line:
    """Return a line that has no meaning for this part."""
    return Line(Mark.NOT_APPLICABLE, evidence)


def merged(parts: Sequence[str], lines: Sequence[Line]) -> Line:
    """Return one line for all parts: the worst mark, everybody's evidence, once if it is the same."""
    if len(set(lines)) == 1:
        return lines[0]
    mark = min((line.mark for line in lines), key=list(Mark).index)
    evidence = "; ".join(f"{part}: {line.evidence}" for part, line in zip(parts, lines, strict=True))
    do = next((line.do for line in lines if line.mark is mark), "")
    return Line(mark, evidence, do, lines[0].name)


def listed(words: Sequence[str], most: int = 4) -> str:
    """Return the first few, and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more} more" if more > 0 else "")
