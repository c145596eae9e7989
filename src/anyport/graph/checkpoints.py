"""A file of new weights, checked against what a graph takes; no PyTorch, and nothing in the file is run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.bundle import read_header, read_tensor
from anyport.bundle.disk import open_regular
from anyport.bundle.tensorfile import DTYPES
from anyport.errors import BundleError, CheckpointError, did_you_mean
from anyport.graph.derivations import Folded, digest_of, names_of, notation
from anyport.graph.narrow import widened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from anyport.bundle import TensorEntry
    from anyport.graph.derivations import Derivations

_PREFIXES: Final = {  # what wrappers put before every name -> who does it
    "module.": "torch.nn.DataParallel",
    "_orig_mod.": "torch.compile",
    "model.": "a trainer around the model",
}
_TYPES: Final = {
    "BF16": "bfloat16",
    "BOOL": "bool",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
} | {code: np.dtype(text).name for code, text in DTYPES.items() if code[0] in "IU"}
_MAX_LISTED: Final = 12
_SAVE_INSTEAD: Final = (
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors') makes one of it"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """New weights that fit.

    Attributes:
        path: The safetensors file.
        entries: Name -> place in the file.
        names: Of each tensor that the rules know: the name in the file.
        dtypes: Of each tensor that the rules know: the type that the graph takes.
        converted: Names of tensors that the file holds in another type; every number stayed as it is.
    """

    path: Path
    entries: Mapping[str, TensorEntry]
    names: Mapping[str, str]
    dtypes: Mapping[str, str]
    converted: tuple[str, ...] = ()

    def read(self, name: str) -> np.ndarray:
        """Read one tensor, in the type that the graph takes; bfloat16 as its bits."""
        entry = self.entries[self.names[name]]
        array, _ = convert(read_tensor(self.path, entry), _TYPES[entry.dtype], self.dtypes[name])
        return array


def open_checkpoint(path: Path, wanted: Derivations) -> Checkpoint:
    """Open a safetensors file and check every tensor in it: name, shape, type, values.

    Cost: every tensor is read once, one at a time.

    Raises:
        CheckpointError: The file is no safetensors file, or not one of this model; every tensor that is wrong
            is named.
    """
    entries = _renamed(read_entries(path), wanted)
    problems = [*_name_problems(entries, wanted), *_form_problems(entries, wanted)]
    if problems:
        raise _refusal(path, problems, _prefix_advice(entries, wanted))
    names = {own: next(n for n in all_of if n in entries) for own, all_of in names_of(wanted).items()
             if any(n in entries for n in all_of)}  # fmt: skip
    dtypes = {name: _dtype(text) for name, text in wanted.state.items()}
    converted = tuple(n for n, own in names.items() if _TYPES[entries[own].dtype] != dtypes[n])
    checkpoint = Checkpoint(path, entries, names, dtypes, converted)
    problems = list(_value_problems(checkpoint, wanted))
    if problems:
        is_pinned = any(pin.why in problem for problem in problems for pin in wanted.pinned.values())
        raise _refusal(
            path, problems, "build it again from the new weights: anyport build" if is_pinned else None
        )
    return checkpoint


def read_entries(path: Path) -> dict[str, TensorEntry]:
    """Read the header of a safetensors file, and say what a file of another kind is.

    Raises:
        CheckpointError: It is missing, no safetensors file, or damaged.
    """
    try:
        with open_regular(path.resolve()) as opened:
            size_bytes = os.fstat(opened.fileno()).st_size
            start = opened.read(9)
        # the length of a good header may begin like a pickle; a pickle's would be longer than any file
        is_good = start[8:] == b"{" and int.from_bytes(start[:8], "little") <= size_bytes - 8
        if not is_good and start.startswith((b"PK\x03\x04", b"\x80")):
            raise CheckpointError(
                f"'{path.name}' is a pickle of PyTorch (.pt, .pth, .bin), which can run code when it is read",
                where=str(path),
                do=_SAVE_INSTEAD,
            )
        return read_header(path.resolve())
    except BundleError as err:
        raise CheckpointError(err.what, where=err.where, do="give a whole .safetensors file") from err


def _renamed(entries: dict[str, TensorEntry], wanted: Derivations) -> dict[str, TensorEntry]:
    """Put back what a recipe put before all names, where the file is of the model that the recipe took in."""
    prefix = next(iter(wanted.state), "").partition(".")[0] + "."
    is_wrapped = all(name.startswith(prefix) for name in wanted.state)
    if is_wrapped and entries and all(prefix + name in wanted.state for name in entries):
        return {prefix + name: entry for name, entry in entries.items()}
    return entries


def _dtype(text: str) -> str:
    return text.partition("[")[0]


def _name_problems(entries: Mapping[str, TensorEntry], wanted: Derivations) -> Iterator[str]:
    """Yield the tensors that are missing, and those that the model does not have."""
    missing = [
        own
        for own, names in names_of(wanted).items()
        if own not in wanted.unread and not any(name in entries for name in names)
    ]
    surplus = [name for name in entries if name not in wanted.state]
    for name in missing:
        near = did_you_mean(name, surplus)
        yield f"'{name}' ({wanted.state[name]}) is missing" + (near if "did you" in near else "")
    for name in surplus:
        near = did_you_mean(name, wanted.state)
        yield f"'{name}' is no tensor of the model" + (near if "did you" in near else "")


def _form_problems(entries: Mapping[str, TensorEntry], wanted: Derivations) -> Iterator[str]:
    """Yield the tensors of another shape, or of a type that no number of the graph's can hold."""
    for name, entry in entries.items():
        if name not in wanted.state:
            continue
        text, dtype = wanted.state[name], _TYPES[entry.dtype]
        found = notation(dtype, entry.shape)
        if found.partition("[")[2] != text.partition("[")[2]:
            yield f"'{name}' is {found}, the graph takes {text}"
        elif not _is_convertible(dtype, _dtype(text)):
            yield f"'{name}' is {found}, which cannot become {_dtype(text)}"


def _is_convertible(found: str, wanted: str) -> bool:
    kinds = (("float16", "bfloat16", "float32", "float64"), ("int8", "int16", "int32", "int64", "uint8"))
    return found == wanted or any(found in kind and wanted in kind for kind in kinds)


def _value_problems(checkpoint: Checkpoint, wanted: Derivations) -> Iterator[str]:
    """Yield the tensors whose numbers cannot be taken."""
    all_names = names_of(wanted)
    variances = {rule.norm.variance for rule in wanted.rules.values() if isinstance(rule, Folded)}
    for own, name in checkpoint.names.items():
        if own in wanted.unread:
            continue
        entry = checkpoint.entries[name]
        raw = read_tensor(checkpoint.path, entry)
        array, n_changed = convert(raw, _TYPES[entry.dtype], checkpoint.dtypes[own])
        if n_changed:
            yield (
                f"'{name}' is {_TYPES[entry.dtype]}, and {n_changed} of its {array.size} numbers are not "
                f"{checkpoint.dtypes[own]} numbers: convert it yourself"
            )
        numbers = as_numbers(array, checkpoint.dtypes[own])
        yield from _infinities(name, numbers, own in wanted.infinite)
        if own in variances and (n_below := int((numbers < 0).sum())):
            yield f"'{name}' is a variance, and {n_below} of its {array.size} numbers are below 0"
        pin = wanted.pinned.get(own)
        if pin is not None and digest_of(array) != pin.sha256:
            yield f"'{name}' has other values than when the graph was made, and may not: {pin.why}"
        yield from _untied(checkpoint, raw, [n for n in all_names[own] if n in checkpoint.entries])


def _infinities(name: str, array: np.ndarray, may_be_infinite: bool) -> Iterator[str]:  # noqa: FBT001
    if array.dtype.kind != "f":
        return
    n_nan, n_infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    if n_nan:
        yield f"'{name}' holds NaN: {n_nan} of its {array.size} numbers"
    if n_infinite and not may_be_infinite:
        yield f"'{name}' holds infinite numbers: {n_infinite} of its {array.size}"


def _untied(checkpoint: Checkpoint, first: np.ndarray, names: list[str]) -> Iterator[str]:
    for name in names[1:]:
        if read_tensor(checkpoint.path, checkpoint.entries[name]).tobytes() != first.tobytes():
            yield f"'{names[0]}' and '{name}' are one tensor in the model, and differ in the file"


def convert(array: np.ndarray, found: str, wanted: str) -> tuple[np.ndarray, int]:
    """Return an array in another type, and how many numbers changed by it.

    >>> convert(np.array([0.1, 0.5]), "float64", "float32")[1]
    1

    Args:
        array: Of bfloat16: the bits.
        found: Its type.
        wanted: The type to make.
    """
    if found == wanted:
        return array, 0
    numbers = as_numbers(array, found)
    with np.errstate(over="ignore"):
        made = numbers.astype(np.float32 if wanted == "bfloat16" else wanted)
    if wanted == "bfloat16":
        made = (made.view(np.uint32) >> 16).astype(np.uint16)
    same = as_numbers(made, wanted) == numbers
    return made, int(numbers.size - np.count_nonzero(same | np.isnan(numbers)))


def as_numbers(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return numbers: those of bfloat16 as float32."""
    return widened(array) if dtype == "bfloat16" else array


def _prefix_advice(entries: Iterable[str], wanted: Derivations) -> str | None:
    names = list(entries)
    for prefix, who in _PREFIXES.items():
        if (
            names
            and all(n.startswith(prefix) for n in names)
            and names[0].removeprefix(prefix) in wanted.state
        ):
            return (
                f"every name begins with '{prefix}', which {who} puts there: save "
                f"{{name.removeprefix('{prefix}'): tensor for name, tensor in state.items()}}"
            )
    return None


def _refusal(path: Path, problems: list[str], do: str | None) -> CheckpointError:
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    listed = problems[:_MAX_LISTED] + ["…"] * (len(problems) > _MAX_LISTED)
    return CheckpointError(
        f"'{path.name}' does not fit: {problems[0]}{more}",
        where="\n         ".join([str(path), *listed[1:]]),
        do=do,
    )
