"""One candidate on its way through the gates, and the choice among those that passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from anyport.compress.compression import Trial
from anyport.errors import CompressError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyport.compress.compression import TrialStatus
    from anyport.compress.gates import GraphFacts
    from anyport.compress.methods import Method
    from anyport.compress.quantizing import Quantized
    from anyport.verify.agreement import Evaluation

_FURTHEST: Final = ("nothing", "failed", "slower", "worse")  # the last got furthest


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method, what it made, and what is known of it so far.

    Attributes:
        method: Who made it.
        quantized: What its maker says of it.
        facts: What the file itself says.
        ratio: How many times faster than the fastest proven fp32; 0 before it is measured.
        evaluation: What the third gate measured; ``None`` before.
        status: For its `Trial`.
        error: Of the gate that it did not pass.
    """

    method: Method
    quantized: Quantized
    facts: GraphFacts
    ratio: float = 0.0
    evaluation: Evaluation | None = None
    status: TrialStatus = "behind"
    error: CompressError | None = None

    @property
    def text(self) -> str:
        """The method's notation."""
        return self.method.text


@dataclass(frozen=True, slots=True)
class Unmade:
    """A method that could not make anything of the graph.

    Attributes:
        method: Who should have.
        error: Why it could not.
    """

    method: Method
    error: CompressError
    ratio: ClassVar[float] = 0.0
    status: ClassVar[TrialStatus] = "failed"

    @property
    def text(self) -> str:
        """The method's notation."""
        return self.method.text


def best_of(tried: Sequence[Candidate]) -> Candidate | None:
    """Return the one with the best answers among those that were judged: they tie in speed, or in size."""
    passed = [(one, one.evaluation) for one in tried if one.error is None and one.evaluation is not None]
    if not passed:
        return None
    return min(passed, key=lambda pair: pair[1].deciding.used)[0]


def refusal(tried: Sequence[Candidate | Unmade]) -> CompressError:
    """Return the error of the candidate that got furthest, with a line for each of the others."""
    stopped = [(one, one.error) for one in tried if one.error is not None]
    if not stopped:
        return CompressError("there is no method to try on this model")
    furthest, error = max(stopped, key=lambda pair: (_FURTHEST.index(pair[0].status), pair[0].ratio))
    others = [other.what for one, other in stopped if one is not furthest]
    where = "; ".join([*([error.where] if error.where else []), *others])
    return CompressError(error.what, where=where or None, do=error.do)


def final_trial(one: Candidate | Unmade, winner: Candidate) -> Trial:
    """Return what came of a candidate, and why it was not kept."""
    if isinstance(one, Unmade):
        return Trial(one.text, one.status, reason=one.error.what)
    status = "kept" if one is winner else one.status
    reason = "" if one.error is None else one.error.what
    if one is not winner and one.error is None:
        reason = f"{winner.text} is better" if one.evaluation is None else f"{winner.text} answers better"
    return Trial(
        one.text,
        status,
        one.facts.n_nodes,
        one.facts.size_bytes,
        one.ratio or None,
        "" if one.evaluation is None else one.evaluation.line(),
        reason,
    )
