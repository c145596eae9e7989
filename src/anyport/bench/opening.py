"""Load time and peak memory of a candidate, measured in child processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from anyport.bench.blank import Blank
from anyport.bench.child import Answer, Order

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anyport.bench.child import Subject
    from anyport.cases import Case
    from anyport.tensors import TensorSpec

_TIMEOUT_S: Final = 600
_MAX_WORDS: Final = 200


@dataclass(frozen=True, slots=True)
class ChildCommand:
    """How a child process opens a candidate: a module with a ``main``, and the words that it understands."""

    module: str
    subject: Subject


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening costs.

    Attributes:
        load_s: From the file to a session that can run; the median over child processes.
        peak_bytes: The most memory above that before opening, over opening and one run; the median.
    """

    load_s: float | Blank
    peak_bytes: int | Blank


def order_for(command: ChildCommand, case: Case, inputs: Iterable[TensorSpec], n_threads: int) -> Order:
    """Write the order for a child."""
    return Order(
        subject=command.subject,
        n_threads=n_threads,
        inputs={spec.name: str(spec) for spec in inputs},
        sizes=dict(case.sizes),
        fills=dict(case.fills),
    )


def measure_opening(module: str, order: Order, n_children: int = 3) -> Opening:
    """Let child processes, one after the other, open and run a candidate.

    Args:
        module: Its ``main`` answers an `Order`.
        order: What is measured.
        n_children: The numbers are medians over so many.
    """
    return summarize([ask_child(module, order) for _ in range(n_children)])


def summarize(answers: Sequence[Answer]) -> Opening:
    """Return the medians; a blank where there was no number, with the first reason."""
    why = next((answer.why for answer in answers if answer.why), "no child process was asked")
    loads = [answer.load_s for answer in answers if answer.load_s is not None]
    peaks = [answer.peak_bytes for answer in answers if answer.peak_bytes is not None]
    return Opening(
        load_s=statistics.median(loads) if loads else Blank(why),
        peak_bytes=int(statistics.median(peaks)) if peaks else Blank(why),
    )


def ask_child(module: str, order: Order) -> Answer:
    """Run one child process; one that dies gives an answer without numbers."""
    # the child finds the packages, and the user's own modules, where this process does
    code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main()"
    try:
        done = subprocess.run(  # noqa: S603 -- our own module, no shell
            [sys.executable, "-c", code],
            input=msgspec.json.encode(order),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, None, f"the child process did not answer within {_TIMEOUT_S} s")
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        last = said[-1][:_MAX_WORDS] if said else "it said nothing"
        return Answer(None, None, f"the child process ended with {done.returncode}: {last}")
    return msgspec.json.decode(lines[-1], type=Answer)
