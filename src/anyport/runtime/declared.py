"""What a plain .onnx file takes: in its own words, as anyport wrote them into it, as the user says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from anyport.errors import BundleError, UsageError
from anyport.runtime.onnxfile import read_metadata
from anyport.tensors import Signature, dim, tensor_of_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anyport.runtime.session import Session

LIBRARIES: Final = "anyport.libraries"  # of the file's metadata: domain -> library
_KEY: Final = "anyport.signature"  # of the file's metadata: inputs, outputs, dims, arguments


def signature_of_file(
    path: Path, session: Session, inputs: Mapping[str, str], dims: Mapping[str, str]
) -> Signature:
    """Return the tensors of a file; a dynamic axis that nobody described has no dim.

    Args:
        path: The file.
        session: It, opened.
        inputs: Notations that say more than the file does (ranges of values).
        dims: The sizes of dynamic axes.

    Raises:
        BundleError: What is written into the file cannot be read.
        UsageError: A name is no input or axis of the file, or a notation is not understood.
    """
    words = written_words(path)
    known = {spec.name: str(spec) for spec in session.inputs}
    _check_known(inputs, known, "--input", f"input of {path.name}")
    notations = known | words.get("inputs", {}) | dict(inputs)
    specs = tuple(tensor_of_file(name, text) for name, text in notations.items())
    axes = {axis: "" for spec in specs for axis in spec.dynamic_axes().values()} | words.get("dims", {})
    _check_known(dims, axes, "--dim", f"axis of {path.name}")
    outputs = {spec.name: str(spec) for spec in session.outputs} | words.get("outputs", {})
    return Signature(
        specs,
        tuple(tensor_of_file(name, text) for name, text in outputs.items()),
        {name: dim(name, text) for name, text in (words.get("dims", {}) | dict(dims)).items()},
    )


def written_words(path: Path) -> dict[str, dict[str, Any]]:
    """Return what anyport wrote into a file about its tensors; nothing in a file of another maker.

    Raises:
        BundleError: It is no JSON of tables of texts, or the file is no .onnx file.
    """
    try:
        text = read_metadata(path).get(_KEY, "{}")
    except (ValueError, OSError) as err:
        raise BundleError(f"{path.name} is no whole .onnx file: {err}", where=str(path)) from err
    try:
        words = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise BundleError(f"{path.name} has a signature that is no JSON") from err
    if not isinstance(words, dict):
        return {}
    for table in ("inputs", "outputs", "dims"):
        texts = words.get(table, {})
        if not (isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values())):
            raise BundleError(f"{path.name} has a signature whose '{table}' are no texts")
    return words


def libraries_of(path: Path) -> dict[str, str]:
    """Return which libraries have the operators that are not ONNX's own: domain -> name, as a file says it.

    It is read for an error, so that a file that cannot be read says nothing. Nothing is loaded by it.
    """
    try:
        words = json.loads(read_metadata(path).get(LIBRARIES, "{}"))
    except (ValueError, OSError, RecursionError):
        return {}
    is_table = isinstance(words, dict) and all(isinstance(name, str) for name in words.values())
    return words if is_table else {}


def _check_known(names: Mapping[str, str], known: Mapping[str, str], option: str, what: str) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{option} '{name}' is no {what}: {', '.join(sorted(known))}")
