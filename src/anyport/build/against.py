"""The PyTorch source of a plain .onnx file, as a reference."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from anyport.build.opponent import TorchSubject, load_part
from anyport.build.plan import locate
from anyport.runtime.declared import written_words
from anyport.source import TorchReference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anyport.tensors import Signature


def described(
    against: str, inputs: Mapping[str, str], dims: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return notations of inputs and axes: those of the project a source is in, and the user's over them."""
    description, _ = locate(against)
    if description is None:
        return dict(inputs), dict(dims)
    return {**description.inputs, **inputs}, {**description.dims, **dims}


def torch_reference(path: Path, against: str, signature: Signature) -> TorchReference:
    """Load what a file was exported from.

    Args:
        path: The .onnx file.
        against: What ``anyport build`` takes.
        signature: Of the file.

    Raises:
        SourceError: The source does not load.
    """
    subject = TorchSubject(
        against=against,
        part=path.stem,
        inputs={spec.name: str(spec) for spec in signature.inputs},
        outputs={spec.name: str(spec) for spec in signature.outputs},
        dims={name: str(sizes) for name, sizes in signature.dims.items()},
        arguments=written_words(path).get("arguments", {}),
    )
    return TorchReference(replace(load_part(subject), name=path.stem))
