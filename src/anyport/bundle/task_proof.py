"""The proof of a whole task: what the original program was asked, and what it answered.

``proof/task.json`` says which cases there are; ``proof/task.safetensors`` holds their pictures, arrays and
answers. A bundle may be without it. What an answer may be off is nothing that a bundle says: see
`anyport.verify.whole_task`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from anyport.bundle.disk import disk_errors
from anyport.bundle.paths import shown
from anyport.bundle.proof import StoredArrays
from anyport.bundle.strictjson import decode_json
from anyport.bundle.tensorfile import TensorFileWriter, dtype_code
from anyport.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import KeysView, Mapping
    from pathlib import Path

    import numpy as np

    from anyport.bundle.reading import Bundle
    from anyport.bundle.tensorfile import TensorEntry

TASK_FILE: Final = "proof/task.json"
TASK_ARRAYS_FILE: Final = "proof/task.safetensors"
MAX_TASK_BYTES: Final = 20_000_000  # of all arrays together
MAX_SIDE: Final = 1024  # of a picture, in pixels
_MAX_CASES: Final = 32
_MAX_PICTURES: Final = 16
_MAX_TEXT: Final = 20_000
_CHANNELS: Final = 3
_PICTURE_AXES: Final = 3
_Text = Annotated[str, msgspec.Meta(max_length=_MAX_TEXT)]


class TaskCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One run of the whole task.

    Attributes:
        name: Unique.
        words: What was asked for; the task knows the names.
        pictures: Keys of uint8[height, width, 3], in their order.
        arrays: What else was given, such as ``latents`` -> key of float32.
        answer: Key of float32[height, width, 3] from 0 to 1: the picture that the original program made.
        between: Part -> key of float32: what that part of the original program answered first.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    words: dict[str, _Text | int | float]
    pictures: Annotated[list[str], msgspec.Meta(max_length=_MAX_PICTURES)]
    arrays: dict[str, str]
    answer: str
    between: dict[str, str] = {}

    @property
    def keys(self) -> list[str]:
        """All keys of arrays."""
        return [*self.pictures, *self.arrays.values(), self.answer, *self.between.values()]


class TaskProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of them.

    Attributes:
        task: That of the manifest.
        cases: In the order in which they are run.
    """

    task: str
    cases: Annotated[list[TaskCase], msgspec.Meta(min_length=1, max_length=_MAX_CASES)]


def write_task_proof(folder: Path, proof: TaskProof, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the proof of a whole task into a bundle that is being made.

    Args:
        folder: Of the bundle.
        proof: Says which arrays there are.
        arrays: By key.

    Raises:
        BundleError: A number is none, an array is missing, too many or of the wrong form, all of them are too
            large, or the disk is full.
    """
    content = msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n"
    decode_json(content, TaskProof, TASK_FILE, str(folder))
    _check_keys(proof, arrays.keys(), str(folder))
    with disk_errors("write", folder / TASK_FILE, len(content)):
        (folder / "proof").mkdir(exist_ok=True)
        (folder / TASK_FILE).write_bytes(content)
    order = sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))
    forms = [(key, dtype_code(arrays[key].dtype), arrays[key].shape) for key in order]
    with TensorFileWriter(folder / TASK_ARRAYS_FILE, forms) as writer:
        for key in order:
            writer.write(key, arrays[key])
    _check_arrays(proof, StoredArrays(folder / TASK_ARRAYS_FILE).entries, str(folder))


def has_task_proof(bundle: Bundle) -> bool:
    """Say whether a bundle carries the proof of its whole task."""
    return any(entry.path == TASK_FILE for entry in bundle.manifest.files)


def read_task_proof(bundle: Bundle) -> tuple[TaskProof, StoredArrays]:
    """Read the proof of the whole task and check it against the manifest; no array is read yet.

    Raises:
        BundleError: It is missing, is of another task, or asks for more than is read.
    """
    where, said = str(bundle.path), bundle.manifest
    proof = decode_json(bundle.read_bytes(TASK_FILE), TaskProof, TASK_FILE, where)
    arrays = StoredArrays(bundle.file(TASK_ARRAYS_FILE))
    if proof.task != said.task:
        raise BundleError(
            f"{TASK_FILE} is of the task {shown(proof.task)}, the manifest names {shown(str(said.task))}",
            where=where,
        )
    _check_keys(proof, arrays.entries.keys(), where)
    _check_arrays(proof, arrays.entries, where)
    names = [case.name for case in proof.cases]
    if len(set(names)) != len(names):
        raise BundleError(f"{TASK_FILE}: two cases have one name", where=where)
    parts = {part for case in proof.cases for part in case.between}
    if not parts <= said.parts.keys():
        strange = shown(min(parts - said.parts.keys()))
        raise BundleError(f"{TASK_FILE} speaks of the part {strange}, which is not there", where=where)
    return proof, arrays


def _check_keys(proof: TaskProof, keys: KeysView[str], where: str) -> None:
    wanted = {key for case in proof.cases for key in case.keys}
    for verb, names in (("lacks", wanted - keys), ("has an unused", keys - wanted)):
        if names:
            raise BundleError(f"{TASK_ARRAYS_FILE} {verb} array {shown(min(names))}", where=where)


def _check_arrays(proof: TaskProof, entries: Mapping[str, TensorEntry], where: str) -> None:
    n_bytes = sum(entry.size_bytes for entry in entries.values())
    if n_bytes > MAX_TASK_BYTES:
        raise BundleError(
            f"{TASK_ARRAYS_FILE} holds {n_bytes} bytes, at most {MAX_TASK_BYTES} are read", where=where
        )
    for case in proof.cases:
        wanted = [*((key, "U8", True) for key in case.pictures), (case.answer, "F32", True)]
        wanted += [(key, "F32", False) for key in (*case.arrays.values(), *case.between.values())]
        reason = next((fault for one in wanted if (fault := _array_fault(entries[one[0]], *one[1:]))), None)
        if reason is not None:
            raise BundleError(f"{TASK_FILE}: case {shown(case.name)}: {reason}", where=where)


def _array_fault(entry: TensorEntry, code: str, is_picture: bool) -> str | None:  # noqa: FBT001 -- a table's
    shape, stored = entry.shape, f"{shown(entry.name)} is stored as {entry.dtype}{list(entry.shape)}"
    if entry.dtype != code:
        return f"{stored}, must be {code}"
    if not is_picture:
        return None
    is_fit = len(shape) == _PICTURE_AXES and shape[2] == _CHANNELS and all(0 < n <= MAX_SIDE for n in shape)
    return None if is_fit else f"{stored}, no picture of at most {MAX_SIDE} x {MAX_SIDE} pixels"
