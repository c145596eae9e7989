"""``anyport reweight``: new weights under the graph of a bundle; PyTorch is needed only to prove them."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from anyport.build.card import model_card
from anyport.build.provenance import created_at, provenance_of
from anyport.bundle import (
    Proof,
    ProofTolerance,
    Staging,
    Step,
    is_version,
    open_bundle,
    seal_bundle,
    stored_text,
    write_proof,
)
from anyport.bundle.disk import digest_file
from anyport.bundle.task_proof import has_task_proof
from anyport.errors import BundleError, CheckpointError, UsageError
from anyport.graph.checkpoints import open_checkpoint
from anyport.graph.derivations import read_derivations
from anyport.graph.storing import read_graph
from anyport.graph.weightswap import swap_weights
from anyport.verify import MAX_ABS_MULTIPLE, RMS_MULTIPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anyport.build.plan import BuildSettings
    from anyport.build.reproving import Reproof
    from anyport.bundle import Bundle, Manifest, VariantEntry
    from anyport.graph.checkpoints import Checkpoint
    from anyport.graph.derivations import Derivations
    from anyport.verify import Verdict

    Progress = Callable[[str, str], None]

_PLAIN_VERSION: Final = re.compile(r"([0-9]+)\.([0-9]+)\.([0-9]+)")
_NO_TASK: Final = (
    "the task is not proven as a whole: the old weights answered its requests, and the original program is "
    "not asked again; anyport build proves it"
)
_NOT_COPIED: Final = ("parts/", "proof/", "MODEL_CARD.md")


@dataclass(frozen=True, slots=True)
class ReweightSettings:
    """How weights are swapped.

    Attributes:
        against: The PyTorch source to prove the result with; ``None`` leaves it unproven.
        version: Of the result; the next patch by default.
        max_cases: How many cases there are at most.
        seed: Of the random cases.
        force: Replace an existing output.
        source_date_epoch: Seconds since 1970 that stand for the time of creation; ``None`` is now.
        command: The words the user typed, for the provenance.
        libraries: Shared libraries with operators of the user's own, for the comparison.
    """

    against: str | None = None
    version: str | None = None
    max_cases: int = 40
    seed: int = 0
    force: bool = False
    source_date_epoch: int | None = None
    command: tuple[str, ...] = ()
    libraries: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Reweighted:
    """What swapping weights made.

    Attributes:
        path: The new bundle.
        manifest: Of it.
        digest: sha256 of the manifest.
        dropped: Variants of the old bundle that the new one lacks.
        verdicts: What the comparison with PyTorch found; empty without one.
        dropped_proofs: Of the old bundle that the new one lacks, and why.
    """

    path: Path
    manifest: Manifest
    digest: str
    dropped: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()
    dropped_proofs: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "bundle": str(self.path),
            "manifest_sha256": self.digest,
            "version": self.manifest.model.version,
            "proven": bool(self.verdicts),
            "dropped": list(self.dropped),
            "dropped_proofs": list(self.dropped_proofs),
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
        }


@dataclass(frozen=True, slots=True)
class _Swap:
    """What will be done, after everything was checked.

    Attributes:
        bundle: The old one.
        part: Its only part.
        checkpoint: The new weights.
        rules: How they become initializers, by variant.
        version: Of the result.
        dropped: The variants that are not carried over.
        settings: How.
    """

    bundle: Bundle
    part: str
    checkpoint: Checkpoint
    rules: Mapping[str, Derivations]
    version: str
    dropped: tuple[str, ...]
    settings: ReweightSettings

    @property
    def created(self) -> str:
        """When the result is made."""
        return created_at(self.settings.source_date_epoch)

    @property
    def note(self) -> str:
        """What a user of an unproven result must know."""
        return (
            f"the weights of '{self.checkpoint.path.name}' were put under the graph of version "
            f"{self.bundle.manifest.model.version}, and not compared with PyTorch"
        )

    @property
    def dropped_proofs(self) -> tuple[str, ...]:
        """What the old weights proved and the new ones cannot, in words for the manifest."""
        return (_NO_TASK,) if has_task_proof(self.bundle) else ()


_DEFAULTS: Final = ReweightSettings()


def reweight(
    bundle: Path,
    checkpoint: Path,
    output: Path,
    settings: ReweightSettings = _DEFAULTS,
    progress: Progress = lambda _step, _text: None,
) -> Reweighted:
    """Make a bundle with the graph of another one and new weights.

    Args:
        bundle: The old one, a folder or a zip; it stays as it is.
        checkpoint: A safetensors file of the model's ``state_dict``.
        output: The new one, a folder.
        settings: How.
        progress: Called with a step's name and one line, as it ends.

    Raises:
        BundleError: The bundle is damaged, or does not say how its graph follows from a checkpoint.
        CheckpointError: The checkpoint does not fit; every tensor that is wrong is named.
        MismatchError: The graph does not compute what PyTorch does with these weights.
        UsageError: The output exists or holds what is read, or the version is none.
    """
    _keep_out(bundle, checkpoint, output)
    with open_bundle(bundle) as old, Staging.open(output, force=settings.force) as staging:
        swap = _plan(old, checkpoint, settings)
        _report(swap, progress)
        _copy(swap, staging.folder, progress)
        reproof = _reprove(swap, staging.folder, progress) if settings.against is not None else None
        manifest, digest = _seal(swap, staging.folder, reproof)
        staging.commit()
    progress("bundle", f"{output.name}   version {manifest.model.version}   sha256 {digest[:12]}…")
    verdicts = reproof.verdicts if reproof else ()
    return Reweighted(output, manifest, digest, swap.dropped, verdicts, swap.dropped_proofs)


def _keep_out(bundle: Path, checkpoint: Path, output: Path) -> None:
    """Refuse an output whose replacement would delete what the new one is made of.

    Raises:
        UsageError: The checkpoint or the old bundle lies in it.
    """
    places = {output.absolute(), output.resolve()}
    for what, path in (("weights", checkpoint), ("bundle", bundle)):
        above = {*path.absolute().parents, *path.resolve().parents}
        if places & above:
            raise UsageError(
                f"{what} '{path}': it is in the output '{output}', which is replaced",
                do="write to another place",
            )


def _plan(bundle: Bundle, checkpoint: Path, settings: ReweightSettings) -> _Swap:
    """Check everything that can be checked before anything is written."""
    manifest = bundle.manifest
    version = _next_version(manifest.model.version, settings.version)
    if len(manifest.parts) > 1:
        raise UsageError(
            f"the bundle has the parts {', '.join(manifest.parts)}: a checkpoint is put under one graph",
            do="build it again from the new weights: anyport build",
        )
    part = next(iter(manifest.parts))
    exact = [name for name, variant in manifest.variants.items() if _is_plain(variant)]
    if not exact:
        raise UsageError("all variants of the bundle are lossy: none says what the weights were",
                         do="build it again from the new weights: anyport build")  # fmt: skip
    rules = {name: _rules(bundle, part, name) for name in exact}
    for name in exact:
        opened = open_checkpoint(checkpoint, rules[name])
    dropped = tuple(name for name in manifest.variants if name not in exact)
    return _Swap(bundle, part, opened, rules, version, dropped, settings)


def _is_plain(variant: VariantEntry) -> bool:
    """Say whether a variant is exact and of ONNX's own operators; a fused one is made of it."""
    return variant.metric is None and not any(graph.runtime for graph in variant.graphs.values())


def _rules(bundle: Bundle, part: str, variant: str) -> Derivations:
    entry = bundle.graph_file(part, variant).entry
    found = None
    if entry.modules is not None:
        found = read_derivations(bundle.read_bytes(entry.modules), str(bundle.path))
    if found is None:
        raise BundleError(
            f"the bundle does not say how the graph of variant '{variant}' follows from a checkpoint",
            where=str(bundle.path),
            do="build it again with this anyport, then swap weights",
        )
    if found.unexplained:
        raise CheckpointError(
            f"the graph's '{found.unexplained[0]}' may depend on weights, and no rule says how",
            where=f"{bundle.path}, variant {variant}",
            do="build it again from the new weights: anyport build",
        )
    return found


def _next_version(old: str, wanted: str | None) -> str:
    if wanted is not None:
        if not is_version(wanted):
            raise UsageError(f"version '{wanted}' is no semantic version", do="write it as 1.0.1")
        if wanted == old:
            raise UsageError(f"version '{wanted}' is that of the old weights", do="give the next one")
        return wanted
    numbers = _PLAIN_VERSION.fullmatch(old)
    if numbers is None:
        raise UsageError(f"the version after '{old}' is not clear", do="say it: --version 1.0.1")
    major, minor, patch = numbers.groups()
    return f"{major}.{minor}.{int(patch) + 1}"


def _report(swap: _Swap, progress: Progress) -> None:
    rules = next(iter(swap.rules.values()))
    kinds = [type(rule).__name__.lower() for rule in rules.rules.values()]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("copied", "folded") if kind in kinds)
    progress("weights", f"{swap.checkpoint.path.name}   {len(kinds)} initializers: {counts}")
    if swap.checkpoint.converted:
        names = swap.checkpoint.converted
        first = swap.checkpoint.entries[swap.checkpoint.names[names[0]]].dtype
        progress("warning", f"{len(names)} tensors are of another type ({first}); every number stays exact")
    for name in swap.dropped:
        progress(
            "warning",
            f"variant '{name}' is of the old weights and is left out; make it again from the new ones: "
            f"{_how_again(swap.bundle.manifest.variants[name])}",
        )
    for text in swap.dropped_proofs:
        progress("warning", text)
    if swap.settings.against is None:
        progress("warning", f"unproven: {swap.note}; --against SOURCE proves it")


def _how_again(variant: VariantEntry) -> str:
    methods = [step.settings.get("method") for step in variant.steps if step.verb == "compress"]
    return f"anyport build … --compress {methods[-1] if methods and methods[-1] else 'int8'}"


def _copy(swap: _Swap, folder: Path, progress: Progress) -> None:
    """Copy what does not depend on the weights, and write the graphs anew."""
    manifest = swap.bundle.manifest
    for entry in manifest.files:
        if not entry.path.startswith(_NOT_COPIED):
            _copy_file(swap.bundle, entry.path, folder)
    metadata = {"version": swap.version, "created": swap.created, "trained_at": ""}
    for name, rules in swap.rules.items():
        graph = manifest.variants[name].graphs[swap.part]
        output = folder / graph.file
        if output.exists():
            continue  # two variants may share a file
        output.parent.mkdir(parents=True, exist_ok=True)
        _copy_file(swap.bundle, str(graph.modules), folder)
        swap_weights(swap.bundle.file(graph.file), output, rules, swap.checkpoint.read, metadata)
        stored = dict(read_graph(output).stored)
        if stored != (graph.stored or stored):
            words = f"{stored_text(graph.stored)} -> {stored_text(stored)}"
            progress("weights", f"{name}   stored in other types, as the new numbers need: {words}")


def _copy_file(bundle: Bundle, relative: str, folder: Path) -> None:
    output = folder / relative
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(bundle.file(relative), output)


def _reprove(swap: _Swap, folder: Path, progress: Progress) -> Reproof:
    from anyport.build.reproving import NewGraph, load_reweighted, reprove

    variants = swap.bundle.manifest.variants
    graphs = [
        NewGraph(
            swap.part, name, folder / variants[name].graphs[swap.part].file, variants[name].graphs[swap.part]
        )
        for name in swap.rules
    ]
    part = load_reweighted(
        str(swap.settings.against),
        graphs[0],
        swap.bundle.manifest.parts[swap.part],
        (swap.checkpoint, swap.rules[graphs[0].variant]),
    )
    found = reprove(graphs, part, _checking(swap.settings))
    for verdict in found.verdicts:
        progress("verify", verdict.summary())
    return found


def _checking(settings: ReweightSettings) -> BuildSettings:
    from anyport.build.plan import BuildSettings

    return BuildSettings(max_cases=settings.max_cases, seed=settings.seed, libraries=settings.libraries)


def _seal(swap: _Swap, folder: Path, reproof: Reproof | None) -> tuple[Manifest, str]:
    if reproof is None:  # what the old weights answered proves nothing of the new ones
        tolerance = ProofTolerance(max_abs_multiple=MAX_ABS_MULTIPLE, rms_multiple=RMS_MULTIPLE)
        write_proof(folder, Proof(parts={swap.part: []}, tolerance=tolerance, omitted=[]), {})
        lines = [f"`{swap.part}`: unproven: {swap.note}"]
    else:
        write_proof(folder, reproof.proof, reproof.arrays)
        lines = [f"`{swap.part}`: {verdict.summary()}" for verdict in reproof.verdicts]
    lines += swap.dropped_proofs
    manifest = _manifest(swap, reproof, folder)
    (folder / "MODEL_CARD.md").write_text(model_card(manifest, lines), encoding="utf-8", newline="\n")
    return seal_bundle(folder, manifest)


def _manifest(swap: _Swap, reproof: Reproof | None, folder: Path) -> Manifest:
    old = swap.bundle.manifest
    summaries = (
        [verdict.summary() for verdict in reproof.verdicts] if reproof else ["unproven"] * len(swap.rules)
    )
    variants = {
        name: _variant(swap, old.variants[name], summary, folder)
        for name, summary in zip(swap.rules, summaries, strict=True)
    }
    default = old.default_variant if old.default_variant in variants else next(iter(variants))
    facts = msgspec.structs.replace(old.model, version=swap.version, created=swap.created, trained_at="")
    return msgspec.structs.replace(
        old,
        model=facts,
        variants=variants,
        default_variant=default,
        provenance=provenance_of(old.provenance.source, swap.settings.command),
        files=[],
    )


def _variant(swap: _Swap, old: VariantEntry, summary: str, folder: Path) -> VariantEntry:
    """Return a variant after the swap; what was found with the old weights is said of them."""
    version = swap.bundle.manifest.model.version
    prefix = f"with the weights of {version}: "
    steps = [
        step if step.verb == "reweight" or step.result.startswith("with the weights of ")
        else msgspec.structs.replace(step, result=prefix + step.result)
        for step in old.steps
    ]  # fmt: skip
    path = swap.checkpoint.path
    settings = {
        "checkpoint": path.name,
        "sha256": digest_file(path.resolve(), path.stat().st_size),
        "graph_of": version,
        "converted": len(swap.checkpoint.converted),
    }
    is_proven = swap.settings.against is not None
    entry = old.graphs[swap.part]
    graph = read_graph(folder / entry.file)
    found = msgspec.structs.replace(
        entry, n_nodes=graph.n_nodes, operators=dict(graph.operators), stored=dict(graph.stored)
    )
    return msgspec.structs.replace(
        old,
        graphs={swap.part: found},
        steps=[*steps, Step("reweight", settings, summary)],
        proven=is_proven,
        note="; ".join((*[swap.note] * (not is_proven), *swap.dropped_proofs)),
    )
