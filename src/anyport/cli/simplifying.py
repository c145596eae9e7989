"""The words of ``anyport simplify`` as the graph room takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from anyport.cli.describing import require_build
from anyport.errors import InputError, UsageError, require

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.graph.equality import Equality
    from anyport.graph.simplify import SimplifySettings
    from anyport.tensors import Signature

_DEFAULT_SIZES: Final = "1..8"  # of a dynamic axis that nobody described, as for `anyport verify`
_PYTORCH: Final = "the PyTorch model"


@dataclass(frozen=True, slots=True)
class SimplifyWords:
    """What the user typed; ``None`` and empty tuples are absent."""

    model: Path
    out: Path
    tools: str | None
    levels: str | None
    memory_limit_bytes: int | None
    timeout_s: float | None
    against: str | None
    inputs: tuple[str, ...]
    dims: tuple[str, ...]
    max_cases: int | None
    seed: int | None
    force: bool
    as_json: bool


def checked(words: SimplifyWords) -> SimplifyWords:
    """Refuse what cannot be done before anything is imported that takes long.

    Raises:
        InputError: There is no such file.
        MissingExtraError: The packages for .onnx files are not installed.
        UsageError: The output is the input, or no .onnx file.
    """
    for package in ("onnx", "onnx_ir"):
        require(package, extra="optimize", step="simplifying")
    if not words.model.is_file():
        raise InputError(f"there is no file {words.model}")
    if words.out.suffix != ".onnx":
        raise UsageError(f"'{words.out}' must end in .onnx", do=f"write {words.out.stem}.onnx")
    if words.out.exists() and words.out.samefile(words.model):
        raise UsageError(f"'{words.out}' is the model itself", do="give the output another name")
    if words.against is not None:
        require_build()
    return words


def equality_of(words: SimplifyWords) -> Equality:
    """Plan what the results are held against: the PyTorch source, or the file itself.

    Raises:
        UsageError: A name is no input or axis of the file, or a whole-number input has no range.
    """
    from anyport.graph.equality import Equality
    from anyport.tensors import pairs
    from anyport.verify import PartSpec, SweepSettings, plan_cases

    inputs, dims = pairs(words.inputs, "--input"), pairs(words.dims, "--dim")
    reference: Any = None
    if words.against is None:
        signature, called = _signature(words.model, inputs, dims), words.model.name
    else:
        from anyport.build.against import described, torch_reference

        signature, called = _signature(words.model, *described(words.against, inputs, dims)), _PYTORCH
        reference = torch_reference(words.model, words.against, signature)
    given: dict[str, Any] = {"max_cases": words.max_cases, "seed": words.seed}
    sweep = SweepSettings(**{name: value for name, value in given.items() if value is not None})
    names = (words.model.stem, "onnx", signature.inputs, signature.outputs, signature.dims)
    plan = plan_cases(signature.inputs, signature.dims, sweep)
    return Equality(PartSpec(*names, reference=called), plan, reference=reference)


def _signature(model: Path, inputs: dict[str, str], dims: dict[str, str]) -> Signature:
    from anyport.runtime import SessionOptions, open_session
    from anyport.runtime.declared import signature_of_file
    from anyport.tensors import dim

    session = open_session(model, SessionOptions(optimization="none"))
    try:
        found = signature_of_file(model, session, inputs, dims)
    finally:
        session.close()
    axes = [axis for spec in found.inputs for axis in spec.dynamic_axes().values()]
    unknown = {axis: dim(axis, _DEFAULT_SIZES) for axis in axes if axis not in found.dims}
    return replace(found, dims=unknown | dict(found.dims))


def settings_of(words: SimplifyWords) -> SimplifySettings:
    """Read how it is done; what is absent keeps its default."""
    from anyport.graph.fastest import levels_named
    from anyport.graph.simplifiers import simplifiers_named
    from anyport.graph.simplify import SimplifySettings
    from anyport.graph.tooltrial import TrialSettings

    given: dict[str, Any] = {"memory_limit_bytes": words.memory_limit_bytes, "timeout_s": words.timeout_s}
    trial = TrialSettings(**{name: value for name, value in given.items() if value is not None})
    chosen: dict[str, Any] = {"trial": trial}
    if words.tools is not None:
        chosen["tools"] = simplifiers_named(words.tools.split(","))
    if words.levels is not None:
        chosen["levels"] = levels_named(words.levels.split(","))
    return SimplifySettings(**chosen)
