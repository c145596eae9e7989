"""The verdict on one part: its legs, what each found, and the words for it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from anyport.errors import MismatchError
from anyport.verify.finding import json_number
from anyport.verify.judging import figure
from anyport.verify.sweep import describe_cases

if TYPE_CHECKING:
    from anyport.verify.agreement import Evaluation
    from anyport.verify.finding import Finding
    from anyport.verify.reference import PartSpec
    from anyport.verify.sweep import CasePlan
    from anyport.verify.whole_task import Rehearsals


class Status(enum.Enum):
    """What a leg, or the whole verdict, says."""

    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    PASS = "PASS"  # noqa: S105  (no password)


@dataclass(frozen=True, slots=True)
class Leg:
    """One of the three ways in which a verdict looks at a graph.

    Attributes:
        name: ``values``, ``power`` or ``weights``; of a whole task ``between`` for the last.
        status: What it says; ``NOT_APPLICABLE`` always with the reason in ``line``.
        line: One line that stands alone.
        details: More lines.
        do: What helps, if it does not pass.
    """

    name: str
    status: Status
    line: str
    details: tuple[str, ...] = ()
    do: str = ""

    def __str__(self) -> str:
        """Return the line with its name and status; the details below."""
        head = f"{self.name:<8}  {self.status.value:<14}  {self.line}"
        return "\n".join((head, *(f"{'':<26}{text}" for text in self.details)))

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            "name": self.name,
            "status": self.status.value,
            "line": self.line,
            "details": list(self.details),
            "do": self.do,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison found about one part in one variant.

    Attributes:
        part: What was compared.
        plan: The cases that were run.
        legs: Values, power, weights; of a whole task values, between, power.
        findings: One per output and case.
        origin: Where in the model a difference begins, if that was looked for.
        evaluation: Of a lossy variant and of a whole task, which have no findings: what was measured.
    """

    part: PartSpec
    plan: CasePlan
    legs: tuple[Leg, ...]
    findings: tuple[Finding, ...]
    origin: str = ""
    evaluation: Evaluation | Rehearsals | None = None

    @property
    def status(self) -> Status:
        """FAIL if any leg fails, else INCONCLUSIVE if any is, else PASS."""
        found = {leg.status for leg in self.legs}
        if Status.FAIL in found:
            return Status.FAIL
        return (
            Status.INCONCLUSIVE
            if Status.INCONCLUSIVE in found or found == {Status.NOT_APPLICABLE}
            else Status.PASS
        )

    @property
    def worst(self) -> Finding | None:
        """The finding that used most of what is allowed; failures first. ``None`` without findings."""
        return max(self.findings, key=lambda found: (not found.passed, found.used), default=None)

    def leg(self, name: str) -> Leg:
        """Return the leg of this name."""
        return next(leg for leg in self.legs if leg.name == name)

    def with_leg(self, leg: Leg) -> Verdict:
        """Return the verdict with this leg in the place of the one of its name."""
        return replace(self, legs=tuple(leg if leg.name == old.name else old for old in self.legs))

    def summary(self) -> str:
        """Return one line: ``14 cases, batch 1, 2   worst 1.3x of …, 22 of 22 weights found   PASS``."""
        found = [
            leg.line for leg in self.legs if leg.status is not Status.NOT_APPLICABLE and self._speaks(leg)
        ]
        return f"{describe_cases(self.plan.cases)}   {', '.join(found)}   {self.status.value}"

    def _speaks(self, leg: Leg) -> bool:
        # power is not worth a word where there is enough of it
        return leg.name != "power" or leg.status is not Status.PASS

    def raise_if_bad(self, *, allow_inconclusive: bool = False) -> None:
        """Do nothing if the verdict passes.

        Raises:
            MismatchError: A leg fails, or one is inconclusive and that is not allowed.
        """
        bad = [leg for leg in self.legs if leg.status is Status.FAIL]
        if not bad and not allow_inconclusive and self.status is Status.INCONCLUSIVE:
            bad = [leg for leg in self.legs if leg.status is Status.INCONCLUSIVE] or list(self.legs[:1])
        if not bad:
            return
        leg, worst = bad[0], self.worst
        where = f"part {self.part.name}, variant {self.part.variant}"
        do = leg.do or f"{self.part.command} --json   shows every output and case"
        if leg.name == "values" and leg.status is Status.FAIL and worst is not None:
            begins = f"; {self.origin}" if self.origin else ""
            raise MismatchError(worst.reason, where=f"{where}, {worst.where}{begins}", do=do)
        what = leg.line if leg.status is Status.FAIL else f"the verdict is inconclusive: {leg.line}"
        raise MismatchError(what, where=where, do=do)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict of everything, for ``--json`` and reports."""
        worst_ratio = json_number(max((found.ratio_max for found in self.findings), default=0.0))
        return {
            "part": self.part.name,
            "variant": self.part.variant,
            "status": self.status.value,
            "summary": self.summary(),
            "worst_ratio": worst_ratio if self.evaluation is None else None,
            "origin": self.origin,
            "legs": [leg.to_json() for leg in self.legs],
            "cases": [
                {"name": case.name, "kind": case.kind, "sizes": dict(case.sizes)} for case in self.plan.cases
            ],
            "dropped": list(self.plan.dropped),
            "findings": [finding.to_json() for finding in self.findings],
            "evaluation": None if self.evaluation is None else self.evaluation.to_json(),
        }

    def table(self, n_rows: int = 8) -> str:
        """Return the legs, and the findings that used most of what is allowed, as text."""
        ordered = sorted(self.findings, key=lambda found: (not found.passed, found.used), reverse=True)
        lines = [str(leg) for leg in self.legs]
        if self.evaluation is not None:
            return "\n".join(lines)
        lines.append(f"{'':<4}  {'max abs':>8}  {'floors':>8}  {'rms fl.':>8}  {'cosine':>9}  output, case")
        lines += [_row(found) for found in ordered[:n_rows]]
        if len(ordered) > n_rows:
            lines.append(f"… and {len(ordered) - n_rows} that used less of what is allowed")
        return "\n".join(lines)


def _row(found: Finding) -> str:
    mark = "ok" if found.passed else "FAIL"
    place = f"{found.output}, {found.case}" + (f": {found.reason}" if found.reason else "")
    numbers = found.numbers
    if numbers is None:
        return f"{mark:<4}  {'-':>8}  {'-':>8}  {'-':>8}  {'-':>9}  {place}"
    cosine = "-" if numbers.cosine_min is None else f"{numbers.cosine_min:.6f}"
    floors = ("-", "-") if found.floor is None else (f"{found.ratio_max:.3g}", f"{found.ratio_rms:.3g}")
    return f"{mark:<4}  {figure(numbers.max_abs):>8}  {floors[0]:>8}  {floors[1]:>8}  {cosine:>9}  {place}"
