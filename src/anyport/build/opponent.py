"""PyTorch as a candidate of a bench: the eager model, here and in a child process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import torch

from anyport.bench import Candidate, ChildCommand
from anyport.bench.child import serve
from anyport.build.plan import locate
from anyport.bundle import open_bundle
from anyport.errors import SourceError, UsageError
from anyport.runtime.declared import written_words
from anyport.runtime.onnxfile import read_metadata
from anyport.source import SourceRequest, TorchSession, find_model
from anyport.tensors import Signature, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from anyport.bench import Contest
    from anyport.recipe import Part
    from anyport.tensors import TensorSpec

NAME: Final = "pytorch"  # in tables; and `--against pytorch` means the source that the target itself names


class TorchSubject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a child process needs to build the same PyTorch model.

    Attributes:
        against: A project folder with an anyport.toml, ``file.py:function``, or a checkpoint.
        part: Of the model, if it has several.
        inputs: Name -> notation.
        outputs: Name -> notation.
        dims: Name -> notation.
        arguments: Other arguments of ``forward``.
    """

    against: str
    part: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    dims: dict[str, str]
    arguments: dict[str, Any]


class EagerSession:
    """A part run by eager PyTorch with a number of threads of its own, until it is closed."""

    def __init__(self, part: Part, n_threads: int) -> None:
        self._session = TorchSession(part)
        self._n_threads_before = torch.get_num_threads()
        torch.set_num_threads(n_threads)  # of the process: ONNX Runtime has threads of its own

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the part takes."""
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the part answers."""
        return self._session.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return output name -> array."""
        return self._session.run(feeds)

    def close(self) -> None:
        """Give the process its threads back."""
        torch.set_num_threads(self._n_threads_before)


def torch_candidate(against: str, target: Path, contest: Contest) -> Candidate:
    """Return PyTorch as a candidate of a contest.

    Args:
        against: What `TorchSubject` takes, or ``pytorch``: the source that the target names.
        target: A bundle or .onnx file of the contest.
        contest: Whose inputs it takes.

    Raises:
        SourceError: The model is not there, or does not load.
        UsageError: The target names no source.
    """
    source = recorded_source(target) if against == NAME else against
    signature = contest.signature
    subject = TorchSubject(
        against=source,
        part=contest.part,
        inputs={spec.name: str(spec) for spec in signature.inputs},
        outputs={spec.name: str(spec) for spec in signature.outputs},
        dims={name: str(sizes) for name, sizes in signature.dims.items()},
        arguments=written_words(target).get("arguments", {}) if target.suffix == ".onnx" else {},
    )
    try:
        part = load_part(subject)
    except SourceError as err:
        if against != NAME:
            raise
        raise SourceError(
            f"{target.name} says that it came from '{source}', which does not load here: {err.what}",
            where=err.where,
            do="say where it is: --against FOLDER, or --against FILE.py:FUNCTION",
        ) from err
    return Candidate(
        name=NAME,
        open=lambda n_threads: EagerSession(part, n_threads),
        child=ChildCommand("anyport.build.opponent", msgspec.to_builtins(subject)),
        size_bytes=module_bytes(part),
    )


def recorded_source(target: Path) -> str:
    """Return the source that a bundle or an .onnx file names.

    Raises:
        UsageError: It names none.
    """
    if target.suffix == ".onnx":
        source = read_metadata(target).get("source", "")
    else:
        with open_bundle(target) as bundle:
            source = bundle.manifest.provenance.source
    if not source:
        raise UsageError(f"{target.name} does not say where it came from", do="--against FILE.py:FUNCTION")
    return source


def load_part(subject: TorchSubject) -> Part:
    """Load the model and take the part."""
    signature = Signature(
        tuple(tensor(name, text) for name, text in subject.inputs.items()),
        tuple(tensor(name, text) for name, text in subject.outputs.items()),
        {name: dim(name, text) for name, text in subject.dims.items()},
    )
    description, folder = locate(subject.against)
    source = description.model.source if description else subject.against
    arguments = (dict(description.arguments) if description else {}) | subject.arguments
    model = find_model(SourceRequest(source, folder, signature, arguments))
    parts = {part.name: part for part in model.parts}
    if len(parts) > 1 and subject.part not in parts:
        raise UsageError(f"'{subject.against}' has the parts {', '.join(parts)}, none is '{subject.part}'")
    part = parts.get(subject.part, model.parts[0])
    return replace(part, signature=signature)


def module_bytes(part: Part) -> int:
    """Return the size of a module's parameters and buffers; those that share memory count once."""
    tensors = [*part.module.parameters(), *part.module.buffers()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def main() -> None:
    """Answer one order about a PyTorch model."""
    serve(_open_subject)


def _open_subject(subject: dict[str, Any], n_threads: int) -> EagerSession:
    return EagerSession(load_part(msgspec.convert(subject, TorchSubject)), n_threads)
