"""Plain .onnx files: exported without a bundle, and verified whoever made them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyport.build.exporting import convert_as_planned, export_text
from anyport.build.fixing import of_fixed_sizes
from anyport.build.parts import graph_metadata, is_allowed
from anyport.build.plan import locate
from anyport.build.proving import sweep_settings, verify_part
from anyport.build.steps import load_model
from anyport.bundle import staged_files
from anyport.errors import UsageError
from anyport.graph.capture import capture
from anyport.graph.initializers import read_initializers
from anyport.graph.storing import StoreOptions, store, weights_name
from anyport.runtime import SessionOptions, open_session
from anyport.runtime.declared import signature_of_file, written_words
from anyport.source import SourceRequest, TorchReference, find_model
from anyport.tensors import Signature, dim
from anyport.verify import (
    Expected,
    PartSpec,
    SessionReference,
    Verdict,
    account_weights,
    compare,
    plan_cases,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyport.build.plan import BuildPlan, BuildSettings
    from anyport.recipe import Part
    from anyport.runtime import Session
    from anyport.tensors import TensorSpec

_DEFAULT_SIZES = "1..8"  # of a dynamic axis that nobody described


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What a plain export wrote.

    Attributes:
        files: The .onnx file, and its weights if they lie beside it.
        verdict: What the comparison with PyTorch found.
    """

    files: tuple[Path, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """A plain .onnx file, and what it is held against.

    Attributes:
        path: The file.
        against: What ``anyport build`` takes (``model.py:load``, a project folder …), or another .onnx file.
        inputs: Notations that say more than the file does (ranges of values).
        dims: The sizes of dynamic axes.
        arguments: Fixed arguments of ``forward``.
        settings: How much is tried, and the user's gates.
    """

    path: Path
    against: str
    inputs: Mapping[str, str]
    dims: Mapping[str, str]
    arguments: Mapping[str, Any]
    settings: BuildSettings


def export_plain(plan: BuildPlan, progress: Callable[[str, str], None]) -> ExportResult:
    """Export a model of one part to a plain .onnx file, and compare it with PyTorch before it appears.

    Weights lie inside the file up to 2 GB, else beside it as safetensors.

    Raises:
        AnyportError: Anything that stops it; nothing is written then.
    """
    if plan.description.build.weights is not None:
        raise UsageError("a plain file has its weights", where="[build] weights", do="anyport build")
    model = load_model(plan, progress)
    if len(model.parts) != 1:
        names = ", ".join(part.name for part in model.parts)
        raise UsageError(
            f"'{model.name}' has {len(model.parts)} parts ({names})", do="anyport build makes a bundle"
        )
    part = model.parts[0]
    captured = capture(part)
    for warning in captured.warnings:
        progress("warning", warning)
    converted = convert_as_planned(captured, part, plan)
    outputs = (plan.output, plan.output.with_name(weights_name(plan.output)))
    with staged_files(outputs, force=plan.settings.force) as folder:
        options = StoreOptions("auto", graph_metadata(plan, model, part), plan.description.build.storage)
        graph = store(converted, folder / plan.output.name, options)
        progress("export", export_text(graph))
        verdict = verify_part(part, captured, graph.path, TorchReference(part), plan.settings)
        progress("verify", verdict.summary())
        if not is_allowed(verdict, plan.settings):
            verdict.raise_if_bad()
    files = outputs if graph.weights else outputs[:1]
    progress("write", ", ".join(f"{path.name} {path.stat().st_size / 1e6:.1f} MB" for path in files))
    return ExportResult(files, verdict)


def verify_plain(request: VerifyRequest) -> Verdict:
    """Compare a plain .onnx file with its PyTorch source, or with another .onnx file.

    Raises:
        UsageError: The two do not have the same inputs, or the sizes of an axis are unknown.
        SourceError: The source does not load or run.
    """
    session = open_session(request.path, SessionOptions(libraries=request.settings.libraries))
    try:
        if request.against.endswith(".onnx"):
            return _verify_against_file(request, session, declared_signature(request, session))
        part = _source_part(request, session)
        return verify_part(part, capture(part), request.path, TorchReference(part), request.settings)
    finally:
        session.close()


def _source_part(request: VerifyRequest, session: Session) -> Part:
    """Load what a file is held against: a function, a project with an anyport.toml, or a checkpoint."""
    description, folder = locate(request.against)
    written = written_words(request.path)
    arguments = dict(written.get("arguments", {})) | dict(request.arguments)
    source, cases = request.against, None
    if description is not None:
        source, cases = description.model.source, description.cases
        arguments = dict(description.arguments) | arguments
        if not written.get("inputs"):  # a file of anyport's says of itself what it takes, fixed axes too
            said = replace(request, inputs={**description.inputs, **request.inputs})
            request = replace(said, dims={**description.dims, **request.dims})
    signature = declared_signature(request, session)
    function = cases.function if cases else None
    model = find_model(SourceRequest(source, folder, signature, arguments, function))
    if len(model.parts) != 1:
        raise UsageError(
            f"'{request.against}' has {len(model.parts)} parts, {request.path.name} is one graph"
        )
    given = model.parts[0].given
    if given is not None and description is not None and description.dims.keys() - signature.dims.keys():
        given = of_fixed_sizes(given, signature.inputs)  # the file was made with --fix
    # a file that anyport wrote has the module's own names, others have what their exporter chose
    is_ours = bool(written)
    part = replace(model.parts[0], name=request.path.stem, signature=signature, given=given)
    return replace(part, outputs_in_order=not is_ours)


def declared_signature(request: VerifyRequest, session: Session) -> Signature:
    """Return the tensors of a file: as anyport wrote them into it, as the user says, or as the file does."""
    found = signature_of_file(request.path, session, request.inputs, request.dims)
    axes = [axis for spec in found.inputs for axis in spec.dynamic_axes().values()]
    unknown = {axis: dim(axis, _DEFAULT_SIZES) for axis in axes if axis not in found.dims}
    return replace(found, dims=unknown | dict(found.dims))


def _verify_against_file(request: VerifyRequest, session: Session, signature: Signature) -> Verdict:
    other_path = Path(request.against)
    # without the runtime's own rewrites, which would be the same mistakes on both sides
    other = open_session(other_path, SessionOptions(optimization="none"))
    try:
        _check_same(session.inputs, other.inputs, "input", request)
        _check_same(session.outputs, other.outputs, "output", request)
        spec = PartSpec(
            request.path.stem,
            "onnx",
            signature.inputs,
            signature.outputs,
            signature.dims,
            reference=other_path.name,
        )
        sweep = sweep_settings(request.settings)
        plan = plan_cases(signature.inputs, signature.dims, sweep, (), signature.outputs)
        reference = SessionReference(other)
        verdict = compare(reference, session, plan, spec, request.settings.gates)
    finally:
        other.close()
    expected = [Expected(name, array.load) for name, array in read_initializers(other_path).items()]
    floats = [item for item in expected if item.load().dtype.kind == "f"]
    return verdict.with_leg(account_weights(floats, read_initializers(request.path)).leg())


def _check_same(
    mine: tuple[TensorSpec, ...], theirs: tuple[TensorSpec, ...], what: str, request: VerifyRequest
) -> None:
    ours, others = {s.name: s.dtype for s in mine}, {s.name: s.dtype for s in theirs}
    if ours != others:
        raise UsageError(
            f"{request.path.name} has the {what}s {ours}, {Path(request.against).name} has {others}"
        )
