"""`Checkpoint`: a model's weights where they lie, read one by one; nothing but headers is read to open it.

One safetensors file, or shards and their index. What a checkpoint must hold follows from the module, not from
its graph: the graph may leave out what its outputs do not need.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyport.bundle import TensorEntry, read_tensor
from anyport.bundle.disk import open_regular
from anyport.errors import BundleError, SourceError, did_you_mean
from anyport.source.weightfiles import (
    AGAIN,
    chosen_files,
    chosen_index,
    listed,
    weight_map,
    weights_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np
    from torch import nn

_INDEX: Final = ".index.json"
_PIPELINE: Final = "model_index.json"  # of diffusers
_FLOATS: Final = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
_WHOLE: Final = {"BOOL": "bool", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8"}
_BLOCK_BYTES: Final = 1 << 20
_OTHER: Final = "give the checkpoint that belongs to this configuration, whole and from one version"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a weight lies.

    Attributes:
        name: Its key in the file.
        file: The file itself; links are resolved.
        dtype: The word of safetensors, such as ``BF16``.
        shape: Its sizes.
        offset: Its first byte, counted from the start of the file.
        n_bytes: How many it has.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights of one model, none of them in memory.

    Attributes:
        folder: Where the files, or the links to them, lie.
        tensors: Name -> where it lies, in the order of the files.
        above: A folder that its files are below, with those of other checkpoints of one model.
    """

    folder: Path
    tensors: Mapping[str, StoredTensor]
    above: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files themselves, links resolved, sorted."""
        return tuple(sorted({tensor.file for tensor in self.tensors.values()}))

    @property
    def root(self) -> Path:
        """The folder that places of files are relative to: ``above``, or the lowest that all are below."""
        return self.above or Path(os.path.commonpath([file.parent for file in self.files]))

    @property
    def n_bytes(self) -> int:
        """Of all weights."""
        return sum(tensor.n_bytes for tensor in self.tensors.values())

    def read(self, tensor: StoredTensor) -> np.ndarray:
        """Read one weight into memory; bfloat16 and 8-bit floats as their bits, in unsigned numbers.

        Raises:
            SourceError: The file is gone, or shorter than it was.
        """
        entry = TensorEntry(tensor.name, tensor.dtype, tensor.shape, tensor.offset, tensor.n_bytes)
        try:
            return read_tensor(tensor.file, entry)
        except BundleError as err:
            raise SourceError(
                err.what, where=tensor.file.name, do="the file has changed since it was opened: begin again"
            ) from err


@dataclass(frozen=True, slots=True)
class Wanted:
    """A weight that a module has.

    Attributes:
        names: Every name that it has in the module; more than one where modules share it.
        shape: Its sizes.
        dtype: Its type in the module, such as ``float32``.
        is_optional: A checkpoint need not have it: the module computes it.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str = "float32"
    is_optional: bool = False


def open_checkpoint(place: Path) -> Checkpoint:
    """Find every weight of a checkpoint, and check that the files are whole and agree with their index.

    Cost: the headers are read, a few kilobytes of each file.

    Args:
        place: A folder, a ``.safetensors`` file, or an index of shards (``.safetensors.index.json``).

    Raises:
        SourceError: It is no checkpoint, a file is missing, cut off or damaged, a weight is in two files, or
            files and index disagree; files and weights are named.
    """
    folder = place if place.is_dir() else place.parent
    files, index = _files(place)
    tensors: dict[str, StoredTensor] = {}
    homes: dict[str, str] = {}
    for file in files:
        real = (folder / file).resolve()
        for name, entry in weights_header(folder / file).items():
            if name in homes:
                raise SourceError(
                    f"the weight '{name}' is in two files of one checkpoint",
                    where=f"{homes[name]}, {file}",
                    do=AGAIN,
                )
            homes[name] = file
            tensors[name] = StoredTensor(name, real, entry.dtype, entry.shape, entry.offset, entry.size_bytes)
    if index is not None:
        _check_index(index, homes)
    if not tensors:
        raise SourceError(f"'{place.name}' holds no weights", do=AGAIN)
    return Checkpoint(folder, tensors)


def _files(place: Path) -> tuple[list[str], Path | None]:
    """Return the names of the files, and their index if there is one."""
    if place.is_dir():
        if (place / _PIPELINE).is_file():
            raise SourceError(
                f"'{place.name}' is a pipeline of several models",
                do=f"give the folder of one of them, such as {place.name}/transformer",
            )
        names, index = list(chosen_files(place)), chosen_index(place)
    elif not place.is_file():
        raise SourceError(f"there is no checkpoint '{place.name}'", where=place.parent.name or None)
    elif place.name.endswith(_INDEX):
        names, index = sorted(set(weight_map(place).values())), place
    else:
        names, index = [place.name], None
    if pickles := [name for name in names if not name.endswith(".safetensors")]:
        raise SourceError(
            f"'{pickles[0]}' is no safetensors file: the weights of a pickle cannot be read one by one, "
            "and it can run code",
            do="safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')",
        )
    return names, index


def _check_index(index: Path, homes: Mapping[str, str]) -> None:
    """Refuse shards that hold other weights than their index says."""
    said = weight_map(index)
    wrong = [f"'{name}' is not in {file}" for name, file in said.items() if homes.get(name) != file]
    wrong += [
        f"'{name}' is in {file} and not in the index" for name, file in homes.items() if name not in said
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise SourceError(
            f"'{index.name}' and its shards disagree about {len(wrong)} weights: {wrong[0]}{more}",
            where=index.parent.name or None,
            do=AGAIN,
        )


def renamed(checkpoint: Checkpoint, name_of: Callable[[str], str]) -> Checkpoint:
    """Return a checkpoint under the names that the module has today, where they are not those of the file.

    Args:
        checkpoint: As it was opened.
        name_of: Name in the file -> name in the module.

    Raises:
        SourceError: Two weights would have one name.
    """
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in checkpoint.tensors.items():
        new = name_of(name)
        if new in tensors:
            raise SourceError(f"the weights '{tensors[new].name}' and '{name}' are both called '{new}' now")
        tensors[new] = tensor
    return replace(checkpoint, tensors=tensors)


def wanted_weights(module: nn.Module) -> tuple[Wanted, ...]:
    """Return the weights that a checkpoint of a module holds; one that modules share has all its names.

    Those that ``state_dict`` leaves out may be in old checkpoints all the same: they are optional.

    Args:
        module: Also on the meta device.
    """
    stored = module.state_dict(keep_vars=True)
    named = chain(stored.items(), module.named_buffers(remove_duplicate=False))
    names: dict[int, dict[str, None]] = {}
    tensors = {}
    for name, tensor in named:
        names.setdefault(id(tensor), {})[name] = None
        tensors[id(tensor)] = tensor
    return tuple(
        Wanted(
            tuple(all_of),
            tuple(tensors[key].shape),
            str(tensors[key].dtype).removeprefix("torch."),
            is_optional=not any(name in stored for name in all_of),
        )
        for key, all_of in names.items()
    )


def check_against(checkpoint: Checkpoint, wanted: Iterable[Wanted]) -> dict[str, StoredTensor]:
    """Hold a checkpoint against the weights of a module.

    Any mix of bfloat16, float16, float32 and float64 is taken for floats. Of a weight with several names one
    is enough; if several are stored, they must be equal (they are read then, a block at a time).

    Returns:
        Every name of every weight in the module -> where it lies.

    Raises:
        SourceError: Weights are missing, have another shape or kind, are none of the module's, or are two
            different ones where the module has one; each is named.
    """
    wanted = tuple(wanted)
    found = {
        name: checkpoint.tensors[next(own for own in one.names if own in checkpoint.tensors)]
        for one in wanted
        if any(own in checkpoint.tensors for own in one.names)
        for name in one.names
    }
    problems = [problem for problem in _problems(checkpoint, wanted) if problem]
    if problems:
        raise SourceError(
            f"the checkpoint '{checkpoint.folder.name}' does not fit the model: {'; '.join(problems)}",
            do=_OTHER,
        )
    return found


def _problems(checkpoint: Checkpoint, wanted: tuple[Wanted, ...]) -> Iterator[str]:
    """Yield one sentence for each kind of problem; some are empty."""
    here = checkpoint.tensors
    own = {name: one for one in wanted for name in one.names}
    surplus = [name for name in here if name not in own]
    missing = [one.names[0] for one in wanted if not one.is_optional and not here.keys() & set(one.names)]
    near = did_you_mean(missing[0], surplus) if len(missing) == 1 else ""
    hint = near if "did you mean" in near else ""
    yield _sentence(missing, f"of its {len(wanted)} weights", "missing", hint)
    yield _forms(
        [
            f"'{name}' is {list(here[name].shape)}, must be {list(one.shape)}"
            for name, one in own.items()
            if name in here and here[name].shape != one.shape and not one.is_optional
        ],
        "of another shape",
    )
    yield _forms(
        [
            f"'{name}' is {here[name].dtype}, the model's is {one.dtype}"
            for name, one in own.items()
            if name in here and not _is_kind(here[name].dtype, one.dtype) and not one.is_optional
        ],
        "of another kind",
    )
    yield _sentence(surplus, f"in the files of {len(here)}", "none of the model's", "")
    yield _forms(
        [
            f"'{first}' and '{second}'"
            for one in wanted
            for first, second in pairwise(name for name in one.names if name in here)
            if not _are_equal(here[first], here[second])
        ],
        "tied in the model and different in the files",
    )


def _sentence(names: list[str], of: str, what: str, hint: str) -> str:
    are = "is" if len(names) == 1 else "are"
    return f"{len(names)} {of} {are} {what}: {listed(names)}{hint}" if names else ""


def _forms(texts: list[str], what: str) -> str:
    more = f" and {len(texts) - 1} more" if len(texts) > 1 else ""
    are = "is" if len(texts) == 1 else "are"
    return f"{len(texts)} {are} {what}: {texts[0]}{more}" if texts else ""


def _is_kind(code: str, dtype: str) -> bool:
    """Say whether a module's tensor can be read from a stored type: any float for a float, else the same."""
    return code in _FLOATS if dtype in _FLOATS.values() else _WHOLE.get(code) == dtype


def _are_equal(one: StoredTensor, other: StoredTensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return one.shape != other.shape  # a problem of its own
    with open_regular(one.file) as first, open_regular(other.file) as second:
        first.seek(one.offset)
        second.seek(other.offset)
        left = one.n_bytes
        while left:
            block = first.read(min(left, _BLOCK_BYTES))
            if not block or block != second.read(len(block)):
                return False
            left -= len(block)
    return True
