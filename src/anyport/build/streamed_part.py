"""One part of a build whose weights are never loaded: exported from its shapes, proven while they stream."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from anyport.build.block_proving import MadeGraph, planned, prove_by_blocks, streamed_subject
from anyport.build.exporting import export_text, export_words
from anyport.build.parts import PROOF_BYTES, ProvenPart, axes_text, graph_metadata, is_allowed
from anyport.build.proof import recorder_of
from anyport.build.streams import open_streams
from anyport.bundle import Step
from anyport.graph.attention import find_attention
from anyport.graph.block_run import BlockSettings
from anyport.graph.block_weights import weights_leg
from anyport.graph.streamed import StreamOptions, store_streamed, translate_part
from anyport.runtime import SessionOptions, open_session
from anyport.source.sampled import SampledReference
from anyport.source.streaming import StreamedSession
from anyport.verify import Status, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anyport.build.plan import BuildPlan, BuildSettings
    from anyport.build.proving import Recorder
    from anyport.build.streams import Stream
    from anyport.recipe import Model, Part
    from anyport.source.merging import LazyWeight
    from anyport.verify import CasePlan, Verdict

_N_FLOAT64: Final = 3  # whole answers of a part with blocks
_EVERY_S: Final = 20.0  # a word of progress


def export_streamed(
    model: Model, part: Part, plan: BuildPlan, progress: Callable[[str, str], None], folder: Path
) -> ProvenPart:
    """Do what `anyport.build.parts.export_and_prove` does, for a part that was made without its weights.

    Memory: the graph and the largest weight; PyTorch and the graph read weights when they need them.

    Raises:
        MismatchError: The verdict is not a pass, and was not allowed by name.
        SourceError: The checkpoint does not fit the module.
    """
    made, stream = plan.description.build, open_streams(model)[part.name]
    weights = made.weights or "copy"
    translated = translate_part(part, stream.source, made.opset)
    for warning in translated.warnings:
        progress("warning", warning)
    converted, path = translated.converted, folder / "model.onnx"
    attention = find_attention(converted.model) if weights == "copy" else ()
    metadata = graph_metadata(plan, model, part)
    graph = store_streamed(translated, path, StreamOptions(weights, made.opset, made.storage, metadata))
    (folder / "modules.json").write_bytes(converted.modules.encode())
    progress("export", f"{part.name}   {export_text(graph)}   dynamic axes: {axes_text(part)}")
    written = MadeGraph(path, converted.modules, stream.adapters)
    proving = Proving(plan.settings, PROOF_BYTES // len(model.parts), progress)
    verdict, recorder = verify_streamed(part, stream, written, proving)
    progress("verify", verdict.summary())
    if not is_allowed(verdict, plan.settings):
        verdict.raise_if_bad()
    words = export_words(converted, part, plan) | {"weights": weights}
    steps = (Step("export", words, verdict.summary()),)
    root = stream.root if weights == "reference" else None
    return ProvenPart(part, graph, verdict, recorder, steps, attention=attention, weights_folder=root)


def verify_streamed(part: Part, stream: Stream, made: MadeGraph, how: Proving) -> tuple[Verdict, Recorder]:
    """Hold a part that was exported without its weights against PyTorch.

    A part with blocks is proven block by block, and as a whole too; then float64 answers to a few cases.

    Args:
        part: That was exported.
        stream: Its weights.
        made: The graph.
        how: How much is done, and who is told of it.

    Returns:
        The verdict, and PyTorch's answers to the whole: they become the bundle's proof.

    Raises:
        ExportError: The graph cannot be cut where the module is.
        MismatchError: PyTorch itself answers NaN or infinity.
        SourceError: The checkpoint does not fit the module, or PyTorch cannot run a planned case.
    """
    spec, plan = planned(part, how.settings)
    subject = streamed_subject(part, stream.source, made)
    reference = reference_of(part, subject.weights, plan)
    recorder = recorder_of(part, how.settings, how.proof_bytes, reference)
    blocks = None
    if part.blocks:
        settings = BlockSettings(gates=how.settings.gates, progress=how.told, answered=reference.keep)
        blocks = prove_by_blocks(subject, plan, spec, settings)
    options = SessionOptions(libraries=how.settings.libraries, weights="mapped", weights_folder=stream.root)
    graph = open_session(made.graph, options)
    try:
        whole = compare(recorder, graph, plan, spec, how.settings.gates)
    finally:
        graph.close()
    if blocks is not None:
        return _joined(blocks, whole), recorder
    folder = subject.folder or made.graph.parent
    return whole.with_leg(weights_leg(made.graph, subject.weights, folder, subject.unused)), recorder


def reference_of(part: Part, weights: Mapping[str, LazyWeight], plan: CasePlan) -> SampledReference:
    """Return PyTorch, as it answers for a part that was made without its weights.

    Args:
        part: That answers.
        weights: Name in its module -> how it is read.
        plan: The cases.
    """
    n_float64 = _N_FLOAT64 if part.blocks else len(plan.cases)
    return SampledReference(part, StreamedSession(part, weights), n_float64)


def _joined(blocks: Verdict, whole: Verdict) -> Verdict:
    """Return the verdict by blocks, with what the graph as a whole answered."""
    leg, other = blocks.leg("values"), whole.leg("values")
    if leg.status is Status.PASS and other.status is not Status.PASS:
        return replace(blocks.with_leg(other), findings=whole.findings)
    text = f"as a whole: {other.line}"
    return blocks.with_leg(replace(leg, details=(*leg.details, text)))


@dataclass(slots=True)
class Proving:
    """How a streamed part is proven.

    Attributes:
        settings: Of the build.
        proof_bytes: For the part's answers in the bundle.
        progress: Told what is done, now and then: a part of 20 B parameters takes an hour.
    """

    settings: BuildSettings
    proof_bytes: int
    progress: Callable[[str, str], None]
    _last_s: float = 0.0

    def __post_init__(self) -> None:
        """Begin to count."""
        self._last_s = time.monotonic()

    def told(self, text: str) -> None:
        """Pass on what is done, unless something was passed on just now."""
        if time.monotonic() - self._last_s >= _EVERY_S:
            self._last_s = time.monotonic()
            self.progress("verify", text)
