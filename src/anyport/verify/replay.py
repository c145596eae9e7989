"""Run a bundle's proof again: on any machine, without PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyport.bundle.proof import answers_of, case_of, open_arrays, read_proof
from anyport.errors import MismatchError
from anyport.verify.compare import compare
from anyport.verify.reference import Answer, Floor, PartSpec
from anyport.verify.sampling import SampledSession
from anyport.verify.sweep import CasePlan
from anyport.verify.verdict import Leg, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from anyport.bundle.manifest import VariantEntry
    from anyport.bundle.proof import Proof, ProofCase
    from anyport.bundle.reading import Bundle, GraphFile
    from anyport.cases import Case
    from anyport.runtime.session import Session
    from anyport.verify.verdict import Verdict

_SEALED: Final = Leg(
    "weights",
    Status.NOT_APPLICABLE,
    "the weights were accounted for when the bundle was built, and every byte is sealed since",
)


class RecordedReference:
    """The answers that PyTorch gave when the bundle was built.

    Args:
        cases: The recorded runs of one part.
        arrays: The recorded arrays by key; read when a case is asked for, and not kept.
    """

    def __init__(self, cases: Sequence[ProofCase], arrays: Mapping[str, np.ndarray]) -> None:
        self._cases = {case.name: case for case in cases}
        self._arrays = arrays

    def answer(self, case: Case) -> Answer:
        """Return the recorded answer.

        Raises:
            MismatchError: Nothing is recorded under the name of this case.
        """
        recorded = self._cases.get(case.name)
        if recorded is None:
            raise MismatchError(f"the proof has no answer to the case '{case.name}'")
        floors = {name: Floor(one.max_abs, one.rms, one.how) for name, one in recorded.floors.items()}
        return Answer(answers_of(recorded, self._arrays), floors)


def verify_bundle(
    bundle: Bundle,
    open_graph: Callable[[GraphFile], Session],
    variant: str | None = None,
    part: str | None = None,
) -> list[Verdict]:
    """Run the proof of a bundle on the graphs that it carries, and judge as when it was built.

    The multiples of this version of anyport decide, not those that the bundle names.

    Example::

        with open_bundle("digits.port") as bundle:
            for verdict in verify_bundle(bundle, open_session):
                verdict.raise_if_bad()

    Args:
        bundle: Stays the caller's to close.
        open_graph: Opens one of its graphs; each is closed before the next.
        variant: Its name; the default variant if absent.
        part: Its name; every part if absent.

    Returns:
        One verdict for each part.

    Raises:
        BundleError: A file is not the one that was sealed.
        UsageError: There is no such variant or part.
        SessionError: The runtime cannot open a graph.
        MismatchError: A recorded answer is NaN or infinite on an ordinary case.
    """
    proof = read_proof(bundle)
    names = list(bundle.manifest.parts) if part is None else [part]
    return [_verify_graph(bundle, proof, bundle.graph_file(name, variant), open_graph) for name in names]


def _verify_graph(
    bundle: Bundle, proof: Proof, graph: GraphFile, open_graph: Callable[[GraphFile], Session]
) -> Verdict:
    arrays, name = open_arrays(bundle), graph.part_name
    recorded = proof.parts.get(name, [])
    plan = CasePlan(tuple(case_of(case, arrays) for case in recorded), _omitted(proof, name))
    spec = PartSpec(
        name,
        graph.variant_name,
        graph.part.input_specs(),
        graph.part.output_specs(),
        graph.part.dim_ranges(),
        command=f"anyport verify {bundle.path.name} --part {name} --variant {graph.variant_name}",
        reference="the recorded answer of the PyTorch model",
    )
    session = SampledSession(open_graph(graph), recorded, arrays)
    try:
        verdict = compare(RecordedReference(recorded, arrays), session, plan, spec)
    finally:
        session.close()
    entry = bundle.manifest.variants[graph.variant_name]
    return verdict.with_leg(_SEALED if entry.proven else _not_proven(entry))


def _not_proven(variant: VariantEntry) -> Leg:
    """What a bundle says of itself that was written although its verdict was no pass."""
    return Leg(
        "weights",
        Status.INCONCLUSIVE,
        f"the bundle was written without being proven: {variant.note or 'nobody said why'}",
        do="build it again, without --allow",
    )


def _omitted(proof: Proof, part: str) -> tuple[str, ...]:
    """Return the cases of this part that were compared at build time and are not carried."""
    prefix = f"{part}: "
    own = [text.removeprefix(prefix) for text in proof.omitted if text.startswith(prefix)]
    return tuple(f"{name}: too large for the proof" for name in own)
