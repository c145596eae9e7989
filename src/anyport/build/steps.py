"""The whole way: a plan in, a sealed bundle out. Nothing is left half-written, whatever happens."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from anyport import __version__
from anyport.build.assets import write_assets
from anyport.build.card import model_card
from anyport.build.exporting import convert_as_planned, export_words
from anyport.build.fixing import fix_axes, n_left_out
from anyport.build.proof import proof_of, recorder_of
from anyport.build.provenance import created_at, provenance_of
from anyport.build.proving import VARIANT, Recorder, read_cases_once, verify_part
from anyport.build.report import machine_report
from anyport.build.simplifying import Known, simplify_proven, simplify_settings
from anyport.bundle import (
    FORMAT,
    GraphEntry,
    Manifest,
    ModelFacts,
    PartEntry,
    Staging,
    Step,
    VariantEntry,
    seal_bundle,
    write_file_atomically,
    write_proof,
)
from anyport.errors import UsageError
from anyport.graph.capture import capture
from anyport.graph.storing import Graph, StoreOptions, store
from anyport.source import find_model
from anyport.task import check_settings
from anyport.verify import Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anyport.build.plan import BuildPlan, BuildSettings
    from anyport.graph.convert import Converted
    from anyport.graph.simplification import Simplification
    from anyport.recipe import Model, Part
    from anyport.runtime import Optimization

_MAX_REPORT_BYTES: Final = 64 << 20
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
    """

    part: Part
    graph: Graph
    verdict: Verdict
    recorder: Recorder
    steps: tuple[Step, ...]
    simplification: Simplification | None = None

    @property
    def optimization(self) -> Optimization:
        """What a runtime may rewrite while it opens the graph."""
        return self.simplification.optimization if self.simplification else "all"


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build made.

    Attributes:
        path: The bundle.
        manifest: Of the bundle.
        digest: sha256 of the manifest, which holds the digests of all other files.
        verdicts: One per part.
        simplifications: Part -> what the simplifiers made of it, where any was asked for.
    """

    path: Path
    manifest: Manifest
    digest: str
    verdicts: tuple[Verdict, ...]
    simplifications: Mapping[str, Simplification] = field(default_factory=dict)


def build(plan: BuildPlan, progress: Callable[[str, str], None]) -> BuildResult:
    """Carry out a plan.

    Args:
        plan: From `BuildPlan`.
        progress: Called with the step's name and one line, as each step ends.

    Raises:
        AnyportError: Anything that stops a build; the output is then as it was before.
    """
    started_s = time.monotonic()
    _check_report(plan.output, force=plan.settings.force)
    simplify_settings(plan.description.build.simplify)  # a name that does not exist is told before the export
    with Staging.open(plan.output, force=plan.settings.force) as staging:
        model = load_model(plan, progress)
        write_assets(staging.folder, model.assets)
        proven = []
        for part in model.parts:
            folder = staging.folder / "parts" / part.name / VARIANT
            folder.mkdir(parents=True)
            proven.append(export_and_prove(model, part, plan, progress, folder))
        manifest, digest = _seal(staging.folder, model, proven, plan)
        staging.commit()
    size_mb = sum(entry.size_bytes for entry in manifest.files) / 1e6
    progress(
        "bundle",
        f"{plan.output.name}   {len(manifest.files)} files, {size_mb:.1f} MB   sha256 {digest[:12]}…",
    )
    result = BuildResult(
        plan.output,
        manifest,
        digest,
        tuple(p.verdict for p in proven),
        {p.part.name: p.simplification for p in proven if p.simplification is not None},
    )
    _write_report(result, time.monotonic() - started_s)
    return result


def load_model(plan: BuildPlan, progress: Callable[[str, str], None]) -> Model:
    """Load the model and lay the user's words over what the recipe says."""
    table = plan.description.model
    model = _fixed(find_model(plan.request), plan.description.build.fix, progress)
    # a mistake in the user's cases is told before the export, which takes longer
    model = replace(model, parts=tuple(read_cases_once(part) for part in model.parts))
    task = table.task or model.task
    settings = dict(model.settings) | plan.description.settings
    if task is not None:
        check_settings(task, settings, {part.name: part.signature for part in model.parts})
    elif settings:
        raise UsageError("settings are given, and no task that they are for", do='task = "classify", say')
    model = replace(model, name=table.name or model.name, task=task, settings=settings)
    n_parameters = sum(p.numel() for part in model.parts for p in part.module.parameters())
    progress("source", f"{model.name}, {n_parameters / 1e6:.2f} M parameters   {model.source}")
    return model


def _fixed(model: Model, sizes: Mapping[str, int], progress: Callable[[str, str], None]) -> Model:
    fixed = fix_axes(model, sizes)
    n_left, n_all = n_left_out(model, fixed) if sizes else (0, 0)
    if n_left:
        words = ", ".join(f"{name}={size}" for name, size in sizes.items())
        progress("warning", f"{n_left} of your {n_all} cases are of other sizes than {words}: left out")
    return fixed


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
    options = StoreOptions(metadata=graph_metadata(plan, model, part))
    path = folder / "model.onnx"
    graph = store(converted, path, options)
    (folder / "modules.json").write_bytes(converted.modules.encode())
    axes = ", ".join(f"{name} {dim}" for name, dim in part.signature.dims.items()) or "none"
    progress("export", f"{part.name}   {graph.n_nodes} nodes, opset {graph.opset}   dynamic axes: {axes}")
    recorder = recorder_of(part, plan.settings, PROOF_BYTES // len(model.parts))
    verdict = verify_part(part, captured, path, recorder, plan.settings)
    progress("verify", verdict.summary())
    if not is_allowed(verdict, plan.settings):
        verdict.raise_if_bad()
    proven = ProvenPart(part, graph, verdict, recorder, (_export_step(converted, part, plan, verdict),))
    settings = simplify_settings(plan.description.build.simplify)
    if settings is None:
        return proven
    known = Known(captured, recorder, plan.settings.gates)
    simplified = simplify_proven(graph, verdict, known, settings, progress)
    steps = (*proven.steps, simplified.step)
    return replace(proven, graph=simplified.graph, steps=steps, simplification=simplified.found)


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


def _seal(folder: Path, model: Model, proven: list[ProvenPart], plan: BuildPlan) -> tuple[Manifest, str]:
    proof, arrays = proof_of({p.part.name: p.recorder for p in proven})
    write_proof(folder, proof, arrays)
    manifest = _manifest(model, proven, plan)
    lines = [f"`{p.part.name}`: {p.verdict.summary()}" for p in proven]
    (folder / "MODEL_CARD.md").write_text(model_card(manifest, lines), encoding="utf-8", newline="\n")
    return seal_bundle(folder, manifest)


def _manifest(model: Model, proven: list[ProvenPart], plan: BuildPlan) -> Manifest:
    table = plan.description.model
    statuses = {p.verdict.status for p in proven}
    note = "" if statuses == {Status.PASS} else "; ".join(p.verdict.summary() for p in proven)
    steps = [step for p in proven for step in p.steps]
    return Manifest(
        format=FORMAT,
        model=ModelFacts(
            name=model.name,
            version=table.version,
            description=table.description,
            author=table.author,
            license=table.license,
            created=created_at(plan.settings.source_date_epoch),
            trained_at=table.trained_at,
        ),
        task=model.task,
        settings=dict(model.settings),
        parts={p.part.name: _part_entry(p.part) for p in proven},
        variants={
            VARIANT: VariantEntry(
                graphs={p.part.name: _graph_entry(p) for p in proven},
                steps=steps,
                proven=statuses == {Status.PASS},
                note=note,
            )
        },
        default_variant=VARIANT,
        provenance=provenance_of(model.source, plan.settings.command),
        files=[],
    )


def _part_entry(part: Part) -> PartEntry:
    words = signature_words(part)
    return PartEntry(inputs=words["inputs"], outputs=words["outputs"], dims=words["dims"])


def _graph_entry(proven: ProvenPart) -> GraphEntry:
    place = f"parts/{proven.part.name}/{VARIANT}"
    graph = proven.graph
    return GraphEntry(
        file=f"{place}/{graph.path.name}",
        weights=f"{place}/{graph.weights.name}" if graph.weights else None,
        modules=f"{place}/modules.json",
        opset=graph.opset,
        n_nodes=graph.n_nodes,
        operators=dict(graph.operators),
        n_parameters=graph.n_parameters,
        optimization=proven.optimization,
    )


def report_path(output: Path) -> Path:
    """Return where the report of a bundle lies: ``digits.report.json`` for ``digits.port``."""
    return output.with_name(f"{output.name.removesuffix('.port')}.report.json")


def _check_report(output: Path, *, force: bool) -> None:
    """Refuse to overwrite a file that is no report of ours."""
    path = report_path(output)
    if force or not path.exists():
        return
    try:
        is_ours = path.stat().st_size <= _MAX_REPORT_BYTES and "manifest" in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError):
        is_ours = False
    if not is_ours:
        raise UsageError(
            f"'{path.name}' exists and is no report of anyport, which would go there",
            where=str(path),
            do="choose another name for the bundle, or add --force to replace the file",
        )


def _write_report(result: BuildResult, wall_s: float) -> None:
    """Write what this machine measured beside the sealed bundle."""
    verdicts: list[Mapping[str, Any]] = [verdict.to_json() for verdict in result.verdicts]
    facts = {"wall_s": round(wall_s, 3), "manifest": result.digest, "verdicts": verdicts}
    simplifications = {name: found.to_json() for name, found in result.simplifications.items()}
    report = machine_report() | facts | {"simplifications": simplifications}
    content = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    write_file_atomically(report_path(result.path), content.encode(), force=True)
