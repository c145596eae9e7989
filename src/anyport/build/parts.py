"""One part of a build: exported, proven, simplified if that is asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from anyport import __version__
from anyport.build.exporting import convert_as_planned, export_text, export_words
from anyport.build.proof import recorder_of
from anyport.build.provenance import created_at
from anyport.build.proving import VARIANT, Recorder, verify_part
from anyport.build.simplifying import Known, simplify_proven, simplify_settings
from anyport.bundle import GraphEntry, Step
from anyport.graph.attention import find_attention
from anyport.graph.capture import capture
from anyport.graph.deriving import note_derivations
from anyport.graph.storing import Graph, StoreOptions, store
from anyport.runtime import SessionOptions
from anyport.runtime.shards import shards_of
from anyport.source import find_ranges
from anyport.verify import Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyport.build.plan import BuildPlan, BuildSettings
    from anyport.graph.attention import AttentionSite
    from anyport.graph.convert import Converted
    from anyport.graph.simplification import Simplification
    from anyport.recipe import Model, Part
    from anyport.runtime import Optimization, Weights
    from anyport.source import Ranges

PROOF_BYTES: Final = 19_000_000  # the arrays of a proof; with its cases it stays under 20 MB


@dataclass(frozen=True, slots=True)
class ProvenPart:
    """One part after export and verification, in the staging folder.

    Attributes:
        part: What was exported.
        graph: Its files.
        verdict: What the comparison found.
        recorder: The reference's answers.
        steps: What was done to the graph, in order.
        simplification: What the simplifiers made of it; ``None`` if none was asked for.
        ranges: How large the numbers inside it become; ``None`` if it has no cases of its own.
        attention: Where it could be one operator of ONNX Runtime.
        runtime: The only runtime that has the graph's operators; ``None``: any.
        weights_folder: The checkpoint that the graph refers to; ``None``: it has its weights.
    """

    part: Part
    graph: Graph
    verdict: Verdict
    recorder: Recorder
    steps: tuple[Step, ...]
    simplification: Simplification | None = None
    ranges: Ranges | None = None
    attention: tuple[AttentionSite, ...] = ()
    runtime: str | None = None
    weights_folder: Path | None = None

    @property
    def options(self) -> SessionOptions:
        """How the graph is opened; one that was made without loading its weights is not loaded either."""
        weights: Weights | None = "mapped" if self.part.stored is not None else None
        return SessionOptions(
            optimization=self.optimization, weights=weights, weights_folder=self.weights_folder
        )

    @property
    def optimization(self) -> Optimization:
        """What a runtime may rewrite while it opens the graph."""
        return self.simplification.optimization if self.simplification else "all"

    @property
    def entry(self) -> GraphEntry:
        """What the manifest says of the graph."""
        entry = graph_entry(self.part, VARIANT, self.graph, self.optimization)
        return msgspec.structs.replace(entry, runtime=self.runtime)


def graph_entry(part: Part, variant: str, graph: Graph, optimization: Optimization) -> GraphEntry:
    """Describe a graph that lies in ``parts/<part>/<variant>/`` for the manifest."""
    place = f"parts/{part.name}/{variant}"
    has_modules = (graph.path.parent / "modules.json").is_file()
    shards = shards_of(graph.path)
    return GraphEntry(
        file=f"{place}/{graph.path.name}",
        weights=f"{place}/{graph.weights.name}" if graph.weights else None,
        modules=f"{place}/modules.json" if has_modules else None,
        opset=graph.opset,
        n_nodes=graph.n_nodes,
        operators=dict(graph.operators),
        n_parameters=graph.n_parameters,
        stored=dict(graph.stored),
        optimization=optimization,
        external=bool(shards),
        shards=list(shards),
    )


def export_and_prove(
    model: Model, part: Part, plan: BuildPlan, progress: Callable[[str, str], None], folder: Path
) -> ProvenPart:
    """Export one part of a model into ``folder`` and compare the file with PyTorch.

    Raises:
        MismatchError: The verdict is not a pass, and was not allowed by name.
    """
    captured = capture(part)
    for warning in captured.warnings:
        progress("warning", warning)
    converted = convert_as_planned(captured, part, plan)
    storage = plan.description.build.storage
    options = StoreOptions(metadata=graph_metadata(plan, model, part), storage=storage)
    path = folder / "model.onnx"
    attention = find_attention(converted.model)
    graph = store(converted, path, options)
    (folder / "modules.json").write_bytes(converted.modules.encode())
    progress("export", f"{part.name}   {export_text(graph)}   dynamic axes: {axes_text(part)}")
    recorder = recorder_of(part, plan.settings, PROOF_BYTES // len(model.parts))
    verdict = verify_part(part, captured, path, recorder, plan.settings)
    progress("verify", verdict.summary())
    if not is_allowed(verdict, plan.settings):
        verdict.raise_if_bad()
    steps: tuple[Step, ...] = (_export_step(converted, part, plan, verdict),)
    ranges = _ranges(part, progress)
    proven = ProvenPart(part, graph, verdict, recorder, steps, ranges=ranges, attention=attention)
    settings = simplify_settings(plan.description.build.simplify)
    if settings is None:
        note_derivations(folder / "modules.json", captured.program, path)
        return proven
    known = Known(captured, recorder, plan.settings.gates)
    simplified = simplify_proven(graph, verdict, known, settings, progress)
    note_derivations(folder / "modules.json", captured.program, path)
    steps = (*steps, simplified.step)
    return replace(proven, graph=simplified.graph, steps=steps, simplification=simplified.found)


def axes_text(part: Part) -> str:
    """Name the axes of a part that stay free."""
    return ", ".join(f"{name} {dim}" for name, dim in part.signature.dims.items()) or "none"


def _ranges(part: Part, progress: Callable[[str, str], None]) -> Ranges | None:
    """Look for numbers that float16 would not hold."""
    found = find_ranges(part)
    if found is not None and (warning := found.warning()) is not None:
        progress("warning", warning)
    return found


def _export_step(converted: Converted, part: Part, plan: BuildPlan, verdict: Verdict) -> Step:
    return Step("export", export_words(converted, part, plan), verdict.summary())


def is_allowed(verdict: Verdict, settings: BuildSettings) -> bool:
    """Say whether the user allowed a verdict that is no pass, by its name."""
    words = {Status.FAIL: "failed", Status.INCONCLUSIVE: "inconclusive"}
    return words.get(verdict.status) in settings.allow


def graph_metadata(plan: BuildPlan, model: Model, part: Part) -> dict[str, str]:
    """Return what a graph says of itself in ``metadata_props``."""
    table = plan.description.model
    facts = {
        "name": model.name,
        "version": table.version,
        "author": table.author,
        "license": table.license,
        "source": model.source,
        "created": created_at(plan.settings.source_date_epoch),
        "trained_at": table.trained_at,
        "producer": f"anyport {__version__}",
        "anyport.signature": json.dumps(signature_words(part), separators=(",", ":")),
    }
    return {key: value for key, value in facts.items() if value}


def signature_words(part: Part) -> dict[str, Any]:
    """Return a part's signature in its notation, as the metadata of a graph keeps it."""
    signature = part.signature
    return {
        "inputs": {spec.name: str(spec) for spec in signature.inputs},
        "outputs": {spec.name: str(spec) for spec in signature.outputs},
        "dims": {name: str(dim) for name, dim in signature.dims.items()},
        "arguments": dict(part.arguments),
    }
