"""The whole way: a plan in, a sealed bundle out. Nothing is left half-written, whatever happens."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from anyport.build.assets import write_assets
from anyport.build.card import model_card
from anyport.build.compressing import (
    Variant,
    check_compression,
    check_user_files,
    compress_model,
    variant_name,
)
from anyport.build.description import laid_over
from anyport.build.fitting import check_fits
from anyport.build.fixing import fix_axes, n_left_out
from anyport.build.fusing import FUSED_VARIANT, fuse_parts, fused_entry
from anyport.build.parts import ProvenPart, signature_words
from anyport.build.proof import proof_of
from anyport.build.provenance import created_at, provenance_of
from anyport.build.proving import VARIANT, read_cases_once
from anyport.build.report import machine_report
from anyport.build.resuming import open_ledger, open_staging
from anyport.build.simplifying import simplify_settings
from anyport.build.streams import check_references, check_streaming, lent_weights
from anyport.build.task_compressing import check_task_samples, compress_task, is_task_judged
from anyport.build.task_proving import prove_task, task_note
from anyport.bundle import (
    FORMAT,
    Manifest,
    ModelFacts,
    PartEntry,
    VariantEntry,
    seal_bundle,
    write_file_atomically,
    write_proof,
)
from anyport.bundle.disk import size_text
from anyport.bundle.manifest import files_outside
from anyport.bundle.task_proof import write_task_proof
from anyport.errors import CompressError, UsageError
from anyport.source import find_model
from anyport.task import check_settings
from anyport.verify import Status, Verdict
from anyport.verify.whole_task import proof_of_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from anyport.build.plan import BuildPlan
    from anyport.build.task_proving import ProvenTask, TaskAnswers
    from anyport.compress.compression import Compression
    from anyport.graph.simplification import Simplification
    from anyport.recipe import Model, Part
    from anyport.source import Ranges

    # parts, verdicts, compressed variants or why there is none, parts with fused attention
    _Made = tuple[
        list[ProvenPart], list[Verdict], Mapping[str, Variant | CompressError], tuple[ProvenPart, ...] | None
    ]

_MAX_REPORT_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build made.

    Attributes:
        path: The bundle.
        manifest: Of the bundle.
        digest: sha256 of the manifest, which holds the digests of all other files.
        verdicts: One per part, and one for the whole task where its original program answered.
        simplifications: Part -> what the simplifiers made of it, where any was asked for.
        compressions: Variant -> part -> what was kept of what was tried.
        refused: Variant that was asked for -> the gate that it did not pass; the bundle is without it.
        ranges: Part -> how large the numbers inside it become, where it has cases of its own.
        task_peak_bytes: The most memory of its own that the proof of the whole task took, in the default
            variant; ``None`` where there is none.
        weights_folder: The checkpoint that the bundle refers to; ``None``: it has its weights.
    """

    path: Path
    manifest: Manifest
    digest: str
    verdicts: tuple[Verdict, ...]
    simplifications: Mapping[str, Simplification] = field(default_factory=dict)
    compressions: Mapping[str, Mapping[str, Compression]] = field(default_factory=dict)
    refused: Mapping[str, CompressError] = field(default_factory=dict)
    ranges: Mapping[str, Ranges] = field(default_factory=dict)
    task_peak_bytes: int | None = None
    weights_folder: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict: what a program wants to know of a build."""
        simplifications = {name: found.to_json() for name, found in self.simplifications.items()}
        compressions = {
            variant: {part: one.to_json() for part, one in found.items()}
            for variant, found in self.compressions.items()
        }
        errors = {n: {"what": e.what, "where": e.where, "do": e.do} for n, e in self.refused.items()}
        return {
            "bundle": str(self.path),
            "manifest_sha256": self.digest,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "simplifications": simplifications,
            "compressions": compressions,
            "refused": errors,
            "ranges": {part: found.to_json() for part, found in self.ranges.items()},
            "task_peak_memory_bytes": self.task_peak_bytes,
        }


def build(plan: BuildPlan, progress: Callable[[str, str], None]) -> BuildResult:
    """Carry out a plan.

    Args:
        plan: From `BuildPlan`.
        progress: Called with the step's name and one line, as each step ends.

    Raises:
        AnyportError: Anything that stops a build; the output is then as it was before.
    """
    started_s = time.monotonic()
    _check_beforehand(plan)
    with open_staging(plan, progress) as staging:
        model = load_model(plan, progress)
        check_task_samples(model, plan)
        ledger = open_ledger(staging, model, plan, progress)
        asked = ledger.asked()
        write_assets(staging.folder, model.assets)
        proven = ledger.proven()
        fused = fuse_parts(proven, plan, progress) if _fuses(model, plan) else None
        whole = _proven_task(model, asked, [proven, *([fused] if fused else [])], plan, progress)
        verdicts = [*(p.verdict for p in proven), *(one.verdict for one in whole)]
        if asked is not None:
            write_task_proof(staging.folder, *proof_of_task(asked.task, asked.recorded))
        variants = _compressed(model, proven, plan, progress)
        manifest, digest = _seal(staging.folder, model, (proven, verdicts, variants, fused), plan)
        staging.commit()
    progress("bundle", f"{plan.output.name}   {_size_text(manifest)}   sha256 {digest[:12]}…")
    result = BuildResult(
        plan.output,
        manifest,
        digest,
        tuple(verdicts),
        {p.part.name: p.simplification for p in proven if p.simplification is not None},
        {name: variant.found for name, variant in variants.items() if isinstance(variant, Variant)},
        {name: error for name, error in variants.items() if isinstance(error, CompressError)},
        {p.part.name: p.ranges for p in proven if p.ranges is not None},
        whole[-1].peak_bytes if whole else None,
        next((p.weights_folder for p in proven if p.weights_folder), None),
    )
    _write_report(result, time.monotonic() - started_s)
    return result


def _check_beforehand(plan: BuildPlan) -> None:
    """Tell what is wrong before anything is loaded, not hours later."""
    _check_report(plan.output, force=plan.settings.force)
    check_words(plan)
    check_user_files(plan)
    check_fits(plan)


def _size_text(manifest: Manifest) -> str:
    size_mb = sum(entry.size_bytes for entry in manifest.files) / 1e6
    outside = files_outside(manifest)
    more = f", beside {size_text(sum(outside.values()))} of the checkpoint" if outside else ""
    return f"{len(manifest.files)} files, {size_mb:.1f} MB{more}"


def _proven_task(
    model: Model,
    asked: TaskAnswers | None,
    forms: Sequence[Sequence[ProvenPart]],
    plan: BuildPlan,
    progress: Callable[[str, str], None],
) -> list[ProvenTask]:
    """Hold the whole task against the original program's answers, in every exact variant."""
    if asked is None:
        return []
    return [prove_task(model, asked, form, plan, progress) for form in forms]


def check_words(plan: BuildPlan) -> None:
    """Refuse names of tools, methods and metrics that do not exist; nothing of the user's is loaded.

    Raises:
        UsageError: There is no such thing.
    """
    simplify_settings(plan.description.build.simplify)
    check_streaming(plan)
    check_compression(plan)


def load_model(plan: BuildPlan, progress: Callable[[str, str], None]) -> Model:
    """Load the model and lay the user's words over what the recipe says."""
    table = plan.description.model
    model = find_model(plan.request).built_for(table.task)
    model = _fixed(model, plan.description.build.fix, progress)
    if plan.description.build.weights == "reference":
        check_references(model)
    # a mistake in the user's cases is told before the export, which takes longer
    with lent_weights(model):
        model = replace(model, parts=tuple(read_cases_once(part) for part in model.parts))
    task = table.task or model.task
    settings = laid_over(model.settings, plan.description.settings)
    if task is not None:
        check_settings(task, settings, {part.name: part.signature for part in model.parts})
    elif settings:
        raise UsageError("settings are given, and no task that they are for", do='task = "classify", say')
    model = replace(model, name=table.name or model.name, task=task, settings=settings)
    # parts may share weights, such as the embeddings of two encoders
    weights = {id(weight): weight for part in model.parts for weight in part.module.parameters()}
    n_parameters = sum(weight.numel() for weight in weights.values())
    progress("source", f"{model.name}, {n_parameters / 1e6:.2f} M parameters   {model.source}")
    for text in model.warnings:
        progress("warning", text)
    return model


def _fixed(model: Model, sizes: Mapping[str, int], progress: Callable[[str, str], None]) -> Model:
    fixed = fix_axes(model, sizes)
    n_left, n_all = n_left_out(model, fixed) if sizes else (0, 0)
    if n_left:
        words = ", ".join(f"{name}={size}" for name, size in sizes.items())
        progress("warning", f"{n_left} of your {n_all} cases are of other sizes than {words}: left out")
    return fixed


def _compressed(
    model: Model, proven: list[ProvenPart], plan: BuildPlan, progress: Callable[[str, str], None]
) -> dict[str, Variant | CompressError]:
    """Make the variants that were asked for; one that does not pass its gates costs the others nothing."""
    made: dict[str, Variant | CompressError] = {}
    for method in plan.description.build.compress:
        name = variant_name(method)
        try:
            compress = compress_task if is_task_judged(model, plan) else compress_model
            made[name] = compress(model, proven, plan, method, progress)
        except CompressError as err:
            made[name] = err
            progress("compress", f"{name} IS NOT WRITTEN   {err.what}")
    return made


def _fuses(model: Model, plan: BuildPlan) -> bool:
    asked = plan.description.build.attention
    if plan.description.build.weights == "reference":  # it is fused already
        return False
    return model.fuses_attention if asked is None else asked == "fused"


def _seal(
    folder: Path,
    model: Model,
    made: _Made,
    plan: BuildPlan,
) -> tuple[Manifest, str]:
    proven, verdicts, variants, fused = made
    proof, arrays = proof_of({p.part.name: p.recorder for p in proven})
    write_proof(folder, proof, arrays)
    manifest = _manifest(model, proven, verdicts, plan)
    more = {name: variant.entry for name, variant in variants.items() if isinstance(variant, Variant)}
    default = VARIANT
    if fused is not None:  # there is no runtime yet that could not open it
        default, more[FUSED_VARIANT] = FUSED_VARIANT, fused_entry(fused, manifest.variants[VARIANT])
    manifest = msgspec.structs.replace(
        manifest, variants=dict(manifest.variants) | more, default_variant=default
    )
    lines = [f"`{verdict.part.name}`: {verdict.summary()}" for verdict in verdicts]
    lines += [note] if (note := task_note(model, plan)) else []
    (folder / "MODEL_CARD.md").write_text(model_card(manifest, lines), encoding="utf-8", newline="\n")
    return seal_bundle(folder, manifest)


def _manifest(model: Model, proven: list[ProvenPart], verdicts: list[Verdict], plan: BuildPlan) -> Manifest:
    table = plan.description.model
    statuses = {verdict.status for verdict in verdicts}
    notes = [] if statuses == {Status.PASS} else [verdict.summary() for verdict in verdicts]
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
                graphs={p.part.name: p.entry for p in proven},
                steps=steps,
                proven=statuses == {Status.PASS},
                note="; ".join(filter(None, [*notes, task_note(model, plan)])),
            )
        },
        default_variant=VARIANT,
        provenance=provenance_of(model.source, plan.settings.command),
        files=[],
    )


def _part_entry(part: Part) -> PartEntry:
    words = signature_words(part)
    return PartEntry(inputs=words["inputs"], outputs=words["outputs"], dims=words["dims"])


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
    found = result.to_json()
    del found["bundle"]  # a path of this machine
    report = machine_report() | {"wall_s": round(wall_s, 3), "manifest": found.pop("manifest_sha256")} | found
    content = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    write_file_atomically(report_path(result.path), content.encode(), force=True)
