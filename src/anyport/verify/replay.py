"""Run a bundle's proof again: on any machine, without PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyport.bundle.lossy import read_lossy_proof
from anyport.bundle.proof import answers_of, case_of, open_arrays, read_proof
from anyport.errors import MismatchError
from anyport.tensors import Signature
from anyport.verify.agreement import Evaluation, measure_agreement
from anyport.verify.compare import compare
from anyport.verify.lossy import recording_of
from anyport.verify.reference import Answer, Floor, PartSpec
from anyport.verify.remeasure import built_leg, judge_lossy
from anyport.verify.sampling import SampledSession
from anyport.verify.sweep import CasePlan
from anyport.verify.verdict import Leg, Status
from anyport.verify.whole_task import verify_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from anyport.bundle.manifest import VariantEntry
    from anyport.bundle.proof import Proof, ProofCase
    from anyport.bundle.reading import Bundle, GraphFile
    from anyport.cases import Case
    from anyport.runtime.session import Session
    from anyport.verify.agreement import Recording
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
        return Answer(answers_of(recorded, self._arrays), floors, recorded.shapes)


def verify_bundle(
    bundle: Bundle,
    open_graph: Callable[[GraphFile], Session],
    variant: str | None = None,
    part: str | None = None,
) -> list[Verdict]:
    """Run the proof of a bundle on the graphs that it carries, and judge as when it was built.

    The multiples of this version of anyport decide, not those that the bundle names. A lossy variant is
    measured anew on this machine, and judged by the allowance that the bundle names: `anyport.verify.lossy`
    refuses one that would let nearly everything pass.

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
        One verdict for each part, and one for the whole task where the bundle carries its proof, the variant
        is exact and no part is named.

    Raises:
        BundleError: A file is not the one that was sealed.
        UsageError: There is no such variant or part.
        SessionError: The runtime cannot open a graph.
        MismatchError: A recorded answer is NaN or infinite on an ordinary case.
    """
    proof = read_proof(bundle)
    names = list(bundle.manifest.parts) if part is None else [part]
    graphs = [bundle.graph_file(name, variant) for name in names]
    lossy = _lossy_parts(bundle, graphs, open_graph)
    verdicts = [_verify_graph(bundle, proof, graph, (open_graph, lossy)) for graph in graphs]
    whole = verify_task(bundle, open_graph, variant) if part is None else None
    return verdicts if whole is None else [*verdicts, whole]


def _lossy_parts(
    bundle: Bundle, graphs: Sequence[GraphFile], open_graph: Callable[[GraphFile], Session]
) -> dict[str, Recording | Evaluation]:
    """Return lossy part -> its samples; where the task is judged as a whole, what that was found worth."""
    variant = graphs[0].variant_name
    metric = bundle.manifest.variants[variant].metric
    if metric is None:
        return {}
    if not metric.part:
        from anyport.verify.tasks import measure_task  # it imports the tasks, which few bundles need here

        return dict(measure_task(bundle, variant, open_graph, {graph.part_name for graph in graphs}))
    proof, arrays = read_lossy_proof(bundle, variant)
    where = f"{bundle.path}, variant {variant}"
    return {
        graph.part_name: recording_of(
            proof.parts[graph.part_name],
            arrays,
            Signature(graph.part.input_specs(), graph.part.output_specs(), graph.part.dim_ranges()),
            metric.n_samples,
            where,
        )
        for graph in graphs
        if graph.part_name in proof.parts
    }


def _verify_graph(
    bundle: Bundle,
    proof: Proof,
    graph: GraphFile,
    ways: tuple[Callable[[GraphFile], Session], Mapping[str, Recording | Evaluation]],
) -> Verdict:
    (open_graph, lossy), name = ways, graph.part_name
    arrays, recorded = open_arrays(bundle), proof.parts.get(name, [])
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
    reference, entry = RecordedReference(recorded, arrays), bundle.manifest.variants[graph.variant_name]
    session = SampledSession(open_graph(graph), recorded, arrays)
    try:
        held = lossy.get(name)
        if held is None:
            verdict, seal = compare(reference, session, plan, spec), _SEALED
        else:
            measured = held if isinstance(held, Evaluation) else measure_agreement(held, session.whole)
            verdict, seal = judge_lossy(measured, reference, session, plan, spec), built_leg(entry)
    finally:
        session.close()
    verdict = verdict.with_leg(seal if entry.proven else _not_proven(entry))
    return verdict if recorded or entry.proven else verdict.with_leg(_no_answers(entry))


def _no_answers(variant: VariantEntry) -> Leg:
    """What is left to say of a bundle whose weights were swapped without PyTorch."""
    why = variant.note or "nobody said why"
    do = "swap the weights again with PyTorch: anyport reweight … --against SOURCE"
    return Leg("values", Status.INCONCLUSIVE, f"the bundle carries no answers of PyTorch: {why}", do=do)


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
