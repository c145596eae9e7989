"""The line of the release list that is judged from the proof of the whole task, replayed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyport.report.line import Checked, Judge, Line, failed, not_applicable, passed, untested
from anyport.task.rehearsals import REHEARSALS
from anyport.verify import Status

if TYPE_CHECKING:
    from anyport.verify import Verdict


def whole_task(checked: Checked) -> Line:
    """What the original program answered to whole requests, the graphs and the task around them answer."""
    manifest = checked.bundle.manifest
    if checked.whole is not None:
        return _judged(checked.whole)
    if manifest.task not in REHEARSALS:
        words = f"for the task '{manifest.task}'" if manifest.task else "without a task"
        return not_applicable(f"no such proof is made {words}: each graph is proven alone")
    if checked.is_lossy:
        return not_applicable("a lossy variant is judged by its metric")
    note = manifest.variants[checked.graph.variant_name].note
    do = "build it again, where the original program can run: anyport build, without --allow and --fix"
    return untested(note or "the bundle carries no proof of its whole task", do)


def _judged(verdict: Verdict) -> Line:
    for status, mark in ((Status.FAIL, failed), (Status.INCONCLUSIVE, untested)):
        bad = next((leg for leg in verdict.legs if leg.status is status), None)
        if bad is not None:
            return mark(bad.line, bad.do or f"{verdict.part.command} --json")
    return passed(f"{len(verdict.plan.cases)} requests: {verdict.leg('values').line}")


TASK_LINES: Final[tuple[tuple[str, Judge], ...]] = (("whole task", whole_task),)
