"""Who is measured against whom: the variants of bundles and plain .onnx files, part by part."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyport.bench.blank import Blank
from anyport.bench.child import graph_subject
from anyport.bench.inputs import check_asked, choose_sizes
from anyport.bench.opening import ChildCommand
from anyport.bundle import Bundle, GraphFile, open_bundle
from anyport.errors import UsageError, did_you_mean
from anyport.runtime import SessionOptions, open_session
from anyport.runtime.declared import signature_of_file
from anyport.runtime.onnxfile import weights_size
from anyport.runtime.signature import signature_of_part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack

    from anyport.runtime import Session
    from anyport.tensors import Signature, TensorSpec

_CHILD: Final = "anyport.bench.child"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that answers the inputs of a contest.

    Attributes:
        name: What it is called in tables.
        open: Opens it with this many threads.
        child: How a child process opens the same.
        size_bytes: Graph and weights, as they lie on the disk, also those outside of the bundle.
    """

    name: str
    open: Callable[[int], Session]
    child: ChildCommand
    size_bytes: int | Blank


@dataclass(frozen=True, slots=True)
class Contest:
    """Candidates that answer the same inputs.

    Attributes:
        part: The part of a bundle, or the name of a file.
        signature: What goes in, and the ranges of its axes.
        sizes: The sizes at which latency and memory are measured.
        candidates: Who takes part, in the order of the table.
        base: The name of the candidate that the others are compared with.
    """

    part: str
    signature: Signature
    sizes: Mapping[str, int]
    candidates: tuple[Candidate, ...]
    base: str

    def against(self, opponent: Candidate) -> Contest:
        """Return the contest with one more, first in the table, with whom all are compared."""
        return replace(self, candidates=(opponent, *self.candidates), base=opponent.name)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a user says beside the targets.

    Attributes:
        variants: Of the bundles; all if empty.
        part: Of the bundles; all if absent.
        sizes: Of named axes.
        inputs: Notations that say more of plain files than they do themselves (ranges of values).
        dims: The sizes that the axes of plain files may have.
        weights: The checkpoint of a bundle, or file, that refers to one.
    """

    variants: tuple[str, ...] = ()
    part: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    dims: Mapping[str, str] = field(default_factory=dict)
    weights: Path | None = None


@dataclass(slots=True)
class _Entrants:
    """Those of one part, as they are found."""

    signature: Signature
    candidates: list[Candidate] = field(default_factory=list)


def find_contests(targets: Sequence[Path], selection: Selection, stack: ExitStack) -> list[Contest]:
    """Open the targets and sort their graphs into contests, one for each part.

    Args:
        targets: Bundles and .onnx files. Files join the only part of the bundles, or are a contest.
        selection: What of them.
        stack: Closes the bundles.

    Raises:
        UsageError: Two that should be compared take different inputs, or nothing is left.
        BundleError: A bundle is damaged.
        SessionError: A plain file does not open.
    """
    found: dict[str, _Entrants] = {}
    files = [path for path in targets if path.suffix == ".onnx"]
    folders = [path for path in targets if path.suffix != ".onnx"]
    for path in folders:
        bundle = stack.enter_context(open_bundle(path))
        _enter_bundle(found, bundle, selection, f"{path.name}:" if len(targets) > 1 else "")
    if files:
        _enter_files(found, files, selection)
    check_asked(selection.sizes, [entrants.signature for entrants in found.values()])
    return [_contest(part, entrants, selection) for part, entrants in found.items()]


def graph_candidate(name: str, graph: Path | GraphFile, weights: Path | None = None) -> Candidate:
    """Return a graph as a candidate.

    Args:
        name: What tables call it.
        graph: The file.
        weights: The checkpoint that it refers to.
    """
    return Candidate(
        name=name,
        open=partial(_open_graph, graph, weights),
        child=ChildCommand(_CHILD, graph_subject(graph, weights)),
        size_bytes=_size_of(graph),
    )


def _open_graph(graph: Path | GraphFile, weights: Path | None, n_threads: int) -> Session:
    return open_session(graph, SessionOptions(n_threads=n_threads, weights_folder=weights))


def _size_of(graph: Path | GraphFile) -> int | Blank:
    try:
        if isinstance(graph, Path):
            return weights_size(graph)
        weights = graph.entry.weights
        beside = graph.path.parent / Path(weights).name if weights else None
        outside_bytes = sum(graph.entry.stored.values()) if graph.entry.external else 0
        return graph.path.stat().st_size + (beside.stat().st_size if beside else 0) + outside_bytes
    except (OSError, ValueError) as err:
        return Blank(f"the size cannot be read: {err}")


def _enter_bundle(found: dict[str, _Entrants], bundle: Bundle, selection: Selection, prefix: str) -> None:
    manifest = bundle.manifest
    for name in selection.variants:
        if name not in manifest.variants:
            raise UsageError(
                f"the bundle has no variant '{name}'{did_you_mean(name, manifest.variants)}",
                where=str(bundle.path),
            )
    default = manifest.default_variant
    # the default variant first: the others are compared with it
    order = sorted(manifest.variants, key=lambda name: name != default)
    chosen = [name for name in order if not selection.variants or name in selection.variants]
    parts = [selection.part] if selection.part is not None else list(manifest.parts)
    for part in parts:
        for variant in chosen:
            graph = bundle.graph_file(part, variant)
            candidate = graph_candidate(f"{prefix}{variant}", graph, selection.weights)
            _enter(found, part, signature_of_part(graph.part), candidate)


def _enter_files(found: dict[str, _Entrants], files: Sequence[Path], selection: Selection) -> None:
    if len(found) > 1:
        raise UsageError(
            f"the bundle has {len(found)} parts ({', '.join(found)}): nothing says which the files are",
            do=f"--part {next(iter(found))}",
        )
    part = next(iter(found), files[0].name)
    names = [path.name for path in files]
    for path in files:
        signature = _signature_of(path, selection)
        name = path.name if names.count(path.name) == 1 else str(path)
        _enter(found, part, signature, graph_candidate(name, path, selection.weights))


def _signature_of(path: Path, selection: Selection) -> Signature:
    session = open_session(path, SessionOptions(weights_folder=selection.weights))
    try:
        return signature_of_file(path, session, selection.inputs, selection.dims)
    finally:
        session.close()


def _enter(found: dict[str, _Entrants], part: str, signature: Signature, candidate: Candidate) -> None:
    entrants = found.setdefault(part, _Entrants(signature))
    ours, theirs = _form(entrants.signature.inputs), _form(signature.inputs)
    if ours != theirs:
        raise UsageError(
            f"'{candidate.name}' takes {_listed(signature.inputs)}, "
            f"'{entrants.candidates[0].name}' takes {_listed(entrants.signature.inputs)}",
            do="bench them one by one",
        )
    if candidate.name in {other.name for other in entrants.candidates}:
        raise UsageError(f"'{candidate.name}' is given twice")
    entrants.candidates.append(candidate)


def _form(inputs: Sequence[TensorSpec]) -> dict[str, tuple[str, int]]:
    """Return what two candidates must have in common; a fixed axis may stand against a dynamic one."""
    return {spec.name: (spec.dtype, len(spec.axes)) for spec in inputs}


def _listed(inputs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec}" for spec in inputs)


def _contest(part: str, entrants: _Entrants, selection: Selection) -> Contest:
    axes = {name for spec in entrants.signature.inputs for name in spec.dynamic_axes().values()}
    asked = {name: size for name, size in selection.sizes.items() if name in axes}
    return Contest(
        part=part,
        signature=entrants.signature,
        sizes=choose_sizes(entrants.signature, asked),
        candidates=tuple(entrants.candidates),
        base=entrants.candidates[0].name,
    )
