"""The whole task against the original program: its answers were recorded, the graphs answer again.

Each part is proven alone, with what PyTorch's own parts feed it (`anyport.verify.compare`). What lies between
the parts (sizes, templates, schedules, guidance) is no graph, and shows only here.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from anyport.bundle.task_proof import TASK_FILE, TaskCase, TaskProof, has_task_proof, read_task_proof
from anyport.cases import Case
from anyport.errors import BundleError, InputError, MismatchError, SessionError, UsageError
from anyport.task.graphs import OpenGraphs
from anyport.task.rehearsals import TaskAnswer, TaskRequest, rehearse
from anyport.tensors import Signature
from anyport.verify.finding import json_number
from anyport.verify.likeness import Likeness, decibels, likeness, psnr, snr
from anyport.verify.reference import PartSpec
from anyport.verify.sweep import CasePlan
from anyport.verify.verdict import Leg, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyport.bundle.reading import Bundle, GraphFile
    from anyport.runtime.session import Session
    from anyport.task.graphs import Graphs

WHOLE_TASK: Final = "(whole task)"  # what verdicts call it in the place of a part
# Of 11 planted mistakes the mildest (a guidance scale 1 % too large) came to 102 dB and four to more than 63,
# clean exports to 124 and more: docs/verify.md
LEAST_DB: Final = 115.0
MAX_LEVELS: Final = 1  # a rounding tie
# parts see each other's rounding here: the exact comparison of each is made alone
LEAST_BETWEEN_DB: Final = 80.0
_POWER_DB: Final = 10.0  # by how much two answers to different requests must differ more than is allowed


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What one case found.

    Attributes:
        name: Of the case.
        likeness: Of both pictures; ``None`` where there is none.
        between: Part -> signal-to-noise ratio in dB of what it answered first.
        fault: Why nothing could be compared; empty otherwise.
    """

    name: str
    likeness: Likeness | None
    between: Mapping[str, float]
    fault: str = ""

    @property
    def passed(self) -> bool:
        """Whether the picture is the original program's."""
        found = self.likeness
        return found is not None and found.psnr_db >= LEAST_DB and found.max_levels <= MAX_LEVELS

    def __str__(self) -> str:
        """Return one line."""
        return f"{'ok' if self.passed else 'FAIL':<4}  {self.fault or self.likeness}   {self.name}"

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            "name": self.name,
            "passed": self.passed,
            "fault": self.fault,
            "between_db": {part: json_number(value) for part, value in self.between.items()},
            **({} if self.likeness is None else self.likeness.to_json()),
        }


@dataclass(frozen=True, slots=True)
class Rehearsals:
    """What all cases found: the evaluation of a verdict on a whole task."""

    cases: tuple[Rehearsed, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return {
            "least_db": LEAST_DB,
            "max_levels": MAX_LEVELS,
            "least_between_db": LEAST_BETWEEN_DB,
            "cases": [case.to_json() for case in self.cases],
        }


def judge_task(
    recorded: Sequence[tuple[TaskRequest, TaskAnswer]], graphs: Graphs, variant: str, command: str
) -> Verdict:
    """Let the task answer every request, and hold that against what the original program answered.

    Args:
        recorded: Requests, and the original answers.
        graphs: Sessions that stay open.
        variant: Whose graphs these are.
        command: What shows more.

    Raises:
        InputError: A request does not fit the task.
        MismatchError: A recorded answer is not finite, or not a picture from 0 to 1.
        UsageError: The task cannot be proven as a whole.
    """
    found = tuple(_rehearsed(request, answer, graphs) for request, answer in recorded)
    cases = tuple(_case_of(request, answer) for request, answer in recorded)
    spec = PartSpec(WHOLE_TASK, variant, (), (), command=command, reference="the original PyTorch program")
    legs = (_values(found), _between(found), _power(recorded))
    return Verdict(spec, CasePlan(cases, ()), legs, (), evaluation=Rehearsals(found))


def _rehearsed(request: TaskRequest, wanted: TaskAnswer, graphs: Graphs) -> Rehearsed:
    for name, array in (("picture", wanted.picture), *wanted.between.items()):
        if not np.isfinite(array).all():
            raise MismatchError(
                f"the original program's own answer to '{request.name}' is not finite: {name}"
            )
    if wanted.picture.min() < 0 or wanted.picture.max() > 1:
        raise MismatchError(f"the recorded picture of '{request.name}' does not lie between 0 and 1")
    try:
        found = rehearse(graphs, request)
    except SessionError as err:
        return Rehearsed(request.name, None, {}, f"does not run: {err.what}")
    if found.picture.shape != wanted.picture.shape:
        return Rehearsed(
            request.name, None, {}, f"is {list(found.picture.shape)}, not {list(wanted.picture.shape)}"
        )
    between = {part: _distance(found.between.get(part), array) for part, array in wanted.between.items()}
    return Rehearsed(request.name, likeness(found.picture, wanted.picture), between)


def _distance(found: np.ndarray | None, wanted: np.ndarray) -> float:
    return -np.inf if found is None or found.shape != wanted.shape else snr(found, wanted)


def _case_of(request: TaskRequest, answer: TaskAnswer) -> Case:
    height, width = answer.picture.shape[:2]
    sizes = {"pictures": len(request.pictures), "height": height, "width": width}
    return Case(request.name, "typical", sizes, {}, {})


def _values(found: Sequence[Rehearsed]) -> Leg:
    bad = [case for case in found if not case.passed]
    details = tuple(map(str, found))
    if bad:
        worst = bad[0]
        line = f"case '{worst.name}': {worst.fault or f'{worst.likeness}; {LEAST_DB:g} dB and 1 needed'}"
        return Leg("values", Status.FAIL, line, details, do="the cases and their figures: --json")
    figures = [case.likeness for case in found if case.likeness is not None]
    worst_db = min(one.psnr_db for one in figures)
    least, levels = min(one.ssim for one in figures), max(one.max_levels for one in figures)
    similar = f"SSIM {least:.7f}, uint8 off by {levels}"
    line = f"worst picture {decibels(worst_db)}, {LEAST_DB:g} needed; {similar}"
    return Leg("values", Status.PASS, line, details)


def _between(found: Sequence[Rehearsed]) -> Leg:
    each = [(value, part, case.name) for case in found for part, value in case.between.items()]
    if not each:
        return Leg("between", Status.NOT_APPLICABLE, "nothing is recorded of what lies between the parts")
    details = tuple(f"{decibels(value)}   {part}, case '{case}'" for value, part, case in each)
    # the first part that is off tells where it begins, so the order of the parts is kept
    value, part, case = next((one for one in each if one[0] < LEAST_BETWEEN_DB), min(each))
    line = f"between the parts {decibels(value)} ({part})"
    if value >= LEAST_BETWEEN_DB:
        return Leg("between", Status.PASS, line, details)
    needed = f"{LEAST_BETWEEN_DB:g} needed"
    line = f"the part '{part}' answers otherwise in case '{case}': {decibels(value)}, {needed}"
    return Leg("between", Status.FAIL, line, details, do="look at what feeds this part in the task")


def _power(recorded: Sequence[tuple[TaskRequest, TaskAnswer]]) -> Leg:
    """Say whether other words or pictures gave other answers: where not, a mistake in them would not show."""
    pairs = [
        (psnr(one.picture, other.picture), first.name, second.name)
        for (first, one), (second, other) in combinations(recorded, 2)
        if one.picture.shape == other.picture.shape and _same_arrays(first, second)
    ]
    if not pairs:
        return Leg("power", Status.INCONCLUSIVE, "no two cases differ in words or pictures alone")
    likest, first, second = max(pairs)
    line = f"other words or pictures come to {decibels(likest)} ('{first}', '{second}')"
    if likest <= LEAST_DB - _POWER_DB:
        return Leg("power", Status.PASS, line)
    return Leg("power", Status.INCONCLUSIVE, f"{line}: the model hardly sees them", do="give trained weights")


def _same_arrays(first: TaskRequest, second: TaskRequest) -> bool:
    return first.arrays.keys() == second.arrays.keys() and all(
        np.array_equal(array, second.arrays[name]) for name, array in first.arrays.items()
    )


def verify_task(
    bundle: Bundle, open_graph: Callable[[GraphFile], Session], variant: str | None = None
) -> Verdict | None:
    """Run the whole task's proof of a bundle again.

    Args:
        bundle: Stays the caller's to close.
        open_graph: Opens one of its graphs; those of one variant are open together.
        variant: Its name; the default variant if absent.

    Returns:
        ``None``: the bundle carries no such proof, or the variant is lossy and has its own.

    Raises:
        BundleError: The proof is damaged, or asks for what the task does not do.
        SessionError: A graph cannot be opened.
    """
    said = bundle.manifest
    name = said.default_variant if variant is None else variant
    if not has_task_proof(bundle) or said.variants[name].metric is not None:
        return None
    proof, arrays = read_task_proof(bundle)
    recorded = recorded_answers(proof, arrays)
    parts = {
        part: Signature(entry.input_specs(), entry.output_specs(), entry.dim_ranges())
        for part, entry in said.parts.items()
    }
    with ExitStack() as stack:
        sessions = {}
        for part in said.parts:
            sessions[part] = open_graph(bundle.graph_file(part, name))
            stack.callback(sessions[part].close)
        graphs = OpenGraphs(said.task, said.settings, parts, sessions, bundle.read_bytes, bundle.path)
        try:
            return judge_task(recorded, graphs, name, f"anyport verify {bundle.path.name} --variant {name}")
        except (InputError, MismatchError, UsageError) as err:  # what a proof holds is no word of the user's
            raise BundleError(f"{TASK_FILE}: {err.what}", where=str(bundle.path)) from err


def recorded_answers(
    proof: TaskProof, arrays: Mapping[str, np.ndarray]
) -> list[tuple[TaskRequest, TaskAnswer]]:
    """Read the requests and answers of a proof, all of them: they are small."""
    return [(_request_of(case, arrays), _answer_of(case, arrays)) for case in proof.cases]


def _request_of(case: TaskCase, arrays: Mapping[str, np.ndarray]) -> TaskRequest:
    given = {name: arrays[key] for name, key in case.arrays.items()}
    return TaskRequest(case.name, case.words, [arrays[key] for key in case.pictures], given)


def _answer_of(case: TaskCase, arrays: Mapping[str, np.ndarray]) -> TaskAnswer:
    return TaskAnswer(arrays[case.answer], {part: arrays[key] for part, key in case.between.items()})


def proof_of_task(
    task: str, recorded: Sequence[tuple[TaskRequest, TaskAnswer]]
) -> tuple[TaskProof, dict[str, np.ndarray]]:
    """Return what `anyport.bundle.task_proof.write_task_proof` writes."""
    arrays: dict[str, np.ndarray] = {}

    def kept(key: str, array: np.ndarray) -> str:
        arrays[key] = np.ascontiguousarray(array)
        return key

    cases = [
        TaskCase(
            name=request.name,
            words=dict(request.words),
            pictures=[kept(f"{n}/picture/{i}", one) for i, one in enumerate(request.pictures, 1)],
            arrays={name: kept(f"{n}/{name}", one) for name, one in request.arrays.items()},
            answer=kept(f"{n}/answer", answer.picture),
            between={part: kept(f"{n}/between/{part}", one) for part, one in answer.between.items()},
        )
        for n, (request, answer) in enumerate(recorded, 1)
    ]
    return TaskProof(task, cases), arrays
