"""A graph with new weights, held against PyTorch with the same weights: all three legs, as in a build."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch

from anyport.build.fixing import of_fixed_sizes
from anyport.build.parts import PROOF_BYTES
from anyport.build.plan import locate
from anyport.build.proof import proof_of
from anyport.build.proving import Recorder, given_cases, sweep_settings
from anyport.errors import CheckpointError, did_you_mean
from anyport.graph.capture import capture
from anyport.graph.expectations import expected_weights
from anyport.graph.initializers import read_initializers
from anyport.runtime import SessionOptions, open_session
from anyport.runtime.declared import written_words
from anyport.source import SourceRequest, TorchReference, find_model
from anyport.tensors import Signature
from anyport.verify import PartSpec, account_weights, compare, plan_cases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from anyport.build.plan import BuildSettings
    from anyport.bundle import GraphEntry, PartEntry, Proof
    from anyport.graph.checkpoints import Checkpoint
    from anyport.graph.derivations import Derivations
    from anyport.recipe import Part
    from anyport.runtime import Optimization
    from anyport.verify import Verdict


@dataclass(frozen=True, slots=True)
class NewGraph:
    """A graph that was given new weights.

    Attributes:
        part: Its part.
        variant: Its variant.
        path: The file.
        entry: What the manifest says of it.
    """

    part: str
    variant: str
    path: Path
    entry: GraphEntry


@dataclass(frozen=True, slots=True)
class Reproof:
    """What the comparison found, and the proof for the bundle with its arrays."""

    verdicts: tuple[Verdict, ...]
    proof: Proof
    arrays: Mapping[str, np.ndarray]


def reprove(graphs: Sequence[NewGraph], part: Part, settings: BuildSettings) -> Reproof:
    """Compare the graphs of one part with PyTorch.

    Args:
        graphs: With the new weights; the first one's answers become the proof.
        part: From `load_reweighted`.
        settings: How much is tried.

    Raises:
        MismatchError: A verdict is not a pass.
        SourceError: PyTorch itself cannot run a planned case.
    """
    captured = capture(part)
    signature, cases = part.signature, given_cases(part)
    sweep = sweep_settings(settings, captured.sizes, part.max_case_bytes)
    plan = plan_cases(signature.inputs, signature.dims, sweep, cases, signature.outputs)
    recorder = Recorder(TorchReference(part), PROOF_BYTES)
    verdicts: list[Verdict] = []
    for graph in graphs:
        names = (graph.part, graph.variant, signature.inputs, signature.outputs, signature.dims)
        level = cast("Optimization", graph.entry.optimization)
        session = open_session(graph.path, SessionOptions(optimization=level, libraries=settings.libraries))
        try:
            reference = recorder if not verdicts else recorder.reference
            verdict = compare(reference, session, plan, PartSpec(*names), settings.gates)
        finally:
            session.close()
        account = account_weights(expected_weights(captured.program), read_initializers(graph.path))
        verdicts.append(verdict.with_leg(account.leg()))
        verdicts[-1].raise_if_bad()
    proof, arrays = proof_of({graphs[0].part: recorder})
    return Reproof(tuple(verdicts), proof, arrays)


def load_reweighted(
    against: str, graph: NewGraph, entry: PartEntry, weights: tuple[Checkpoint, Derivations]
) -> Part:
    """Load the PyTorch model of a bundle and give it the new weights.

    Args:
        against: What ``anyport build`` takes.
        graph: Says how ``forward`` was called.
        entry: Of the part.
        weights: The checkpoint, and the tensors that the bundle's model had.

    Raises:
        CheckpointError: It is another model than the bundle's.
        SourceError: The source does not load.
    """
    description, folder = locate(against)
    words = written_words(graph.path)
    signature = Signature(entry.input_specs(), entry.output_specs(), entry.dim_ranges())
    request = SourceRequest(
        text=description.model.source if description else against,
        folder=folder,
        signature=signature,
        arguments=words.get("arguments", {}),
        cases=description.cases.function if description and description.cases else None,
    )
    model = find_model(request)
    part = replace(model.parts[0], name=graph.part, signature=signature)
    if part.given is not None:
        part = replace(part, given=of_fixed_sizes(part.given, signature.inputs))
    _load(part.module, against, *weights)
    return part


def _load(module: torch.nn.Module, against: str, checkpoint: Checkpoint, wanted: Derivations) -> None:
    """Write the new weights into a module, one at a time."""
    state = module.state_dict()
    if state.keys() != wanted.state.keys():
        odd = min(state.keys() ^ wanted.state.keys())
        where = "only the bundle's has" if odd in wanted.state else "the bundle's lacks"
        near = did_you_mean(odd, state if odd in wanted.state else wanted.state)
        raise CheckpointError(
            f"'{against}' is another model than the bundle's: {where} the tensor '{odd}'"
            + (near if "did you" in near else ""),
            do="give the source that the bundle was built from",
        )
    for name, tensor in state.items():
        own = wanted.tied.get(name, name)
        if own not in checkpoint.names:
            continue
        array = checkpoint.read(own)
        new = torch.from_numpy(array.copy())
        new = new.view(torch.bfloat16) if checkpoint.dtypes[own] == "bfloat16" else new
        if new.shape != tensor.shape:
            raise CheckpointError(
                f"'{against}' is another model than the bundle's: its '{name}' is {list(tensor.shape)}, "
                f"the bundle's {wanted.state[name]}",
                do="give the source that the bundle was built from",
            )
        with torch.no_grad():
            tensor.copy_(new)
