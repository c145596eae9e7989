"""Files of weights that a graph refers to and that are no part of the bundle: recorded, and recognised again.

A shard of several gigabytes is recognised by its size, its header, and one page of each of its tensors: that
takes as long as opening it does. The digest of the whole file is recorded too; to compute it again takes
minutes, and is done on request.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from anyport.bundle.disk import digest_file, disk_errors, open_regular
from anyport.bundle.paths import check_paths, shown
from anyport.bundle.tensorfile import TensorEntry, read_header
from anyport.errors import BundleError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from io import FileIO

PAGE_BYTES: Final = 4096
_AGAIN: Final = "give the checkpoint that the graph was made of, or build it again"
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]


class ShardEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a checkpoint.

    Attributes:
        file: Its path with ``/`` below the folder of the weights.
        size_bytes: Of the file.
        sampled: SHA-256 of its header and of one page of each tensor.
        sha256: Of the whole file.
    """

    file: str
    size_bytes: Annotated[int, msgspec.Meta(ge=0)]
    sampled: _Sha256
    sha256: _Sha256


def record_shards(root: Path, files: Iterable[Path]) -> tuple[ShardEntry, ...]:
    """Record files of weights; each is read once, whole.

    Args:
        root: A folder that all files are below.
        files: The files themselves, no links.

    Raises:
        BundleError: A file is no safetensors file, or cannot be read.
    """
    return tuple(_record(root, file) for file in sorted(files))


def _record(root: Path, file: Path) -> ShardEntry:
    found, name = file.stat(), file.relative_to(root).as_posix()
    # two parts of a model may share a file of gigabytes
    whole = _digest(file, found.st_size, found.st_mtime_ns)
    return ShardEntry(name, found.st_size, sampled_digest(file), whole)


@lru_cache(maxsize=64)
def _digest(file: Path, size_bytes: int, changed_ns: int) -> str:  # noqa: ARG001 -- a file that was changed is another
    return digest_file(file, size_bytes)


def sampled_digest(file: Path, header: Iterable[TensorEntry] | None = None) -> str:
    """Return the SHA-256 of a file's header and of one page of each tensor, at a place that its name decides.

    Args:
        file: A safetensors file.
        header: What `anyport.bundle.read_header` gives of it, where it is known.
    """
    entries = sorted(read_header(file).values() if header is None else header, key=lambda one: one.offset)
    digest = hashlib.sha256()
    with open_regular(file) as opened, disk_errors("read", file):
        length = int.from_bytes(opened.read(8), "little")
        opened.seek(0)
        digest.update(opened.read(8 + length))
        for page in _pages(opened, entries):
            digest.update(page)
    return digest.hexdigest()


def _pages(opened: FileIO, entries: Iterable[TensorEntry]) -> Iterator[bytes]:
    for entry in entries:
        n_places = max(entry.size_bytes - PAGE_BYTES, 0) + 1
        place = int.from_bytes(hashlib.sha256(entry.name.encode()).digest()[:8], "little") % n_places
        opened.seek(entry.offset + place)
        yield opened.read(min(entry.size_bytes, PAGE_BYTES))


def check_shards(
    root: Path, shards: Sequence[ShardEntry], *, whole: bool = False
) -> dict[str, dict[str, TensorEntry]]:
    """Check that files of weights are those that were recorded.

    Args:
        root: Where they are.
        shards: What was recorded.
        whole: Read every byte, not a page of each tensor alone.

    Returns:
        File -> its header.

    Raises:
        BundleError: A file is missing, or another one; it is named.
    """
    check_paths([shard.file for shard in shards], str(root))
    return {shard.file: _check(root, shard, whole=whole) for shard in shards}


def _check(root: Path, shard: ShardEntry, *, whole: bool) -> dict[str, TensorEntry]:
    path = root / shard.file
    if path.is_file() and not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(
            f"{shown(shard.file)} is a link that leads elsewhere, and a session follows none",
            where=str(root),
            do="name the folder that has the files themselves; hf download NAME --local-dir DIR makes one",
        )
    if not path.is_file():
        there = [one.name for one in root.iterdir()] if root.is_dir() else []
        near = did_you_mean(shard.file, there) if there else ""
        raise BundleError(
            f"the weights lack the file {shown(shard.file)}{near if 'did you mean' in near else ''}",
            where=str(root),
            do="name the folder of the checkpoint: --weights DIR; what was built from a snapshot of the "
            "Hugging Face cache names files as the cache does",
        )
    size_bytes = path.stat().st_size
    if size_bytes != shard.size_bytes:
        raise BundleError(
            f"{shown(shard.file)} has {size_bytes} bytes, {shard.size_bytes} are recorded: it was changed",
            where=str(root),
            do=_AGAIN,
        )
    header = read_header(path)
    if sampled_digest(path, header.values()) != shard.sampled:
        raise _changed(root, shard, "its header or a page of its tensors is")
    if whole and _digest(path, size_bytes, path.stat().st_mtime_ns) != shard.sha256:
        raise _changed(root, shard, "its digest is")
    return header


def _changed(root: Path, shard: ShardEntry, what: str) -> BundleError:
    return BundleError(
        f"{shown(shard.file)} was changed since the graph was made: {what} not what was recorded",
        where=str(root),
        do=_AGAIN,
    )


def shards_text(shards: Sequence[ShardEntry]) -> str:
    """Write shards as JSON, as a graph's metadata keep them."""
    return msgspec.json.encode(list(shards)).decode()


def shards_from_text(text: str) -> tuple[ShardEntry, ...]:
    """Read what `shards_text` wrote.

    Raises:
        BundleError: It is not such a text.
    """
    try:
        return tuple(msgspec.json.decode(text, type=list[ShardEntry]))
    except (msgspec.DecodeError, RecursionError) as err:
        raise BundleError(f"what the graph says of its weights cannot be read: {err}") from err


def weights_root(folder: Path, shards: Sequence[ShardEntry]) -> Path:
    """Return the folder that the shards' paths are relative to, for the folder that a user names.

    The Hugging Face cache keeps links, also in the folders below: then it is that of the files they lead to.
    """
    here = folder.resolve()
    if not here.is_dir() or all((here / shard.file).is_file() for shard in shards):
        return here
    for link in sorted([*here.iterdir(), *here.glob("*/*")]):
        real = link.resolve().as_posix() if link.is_symlink() else ""
        for shard in shards:
            if real.endswith(f"/{shard.file}"):
                return Path(real.removesuffix(f"/{shard.file}"))
    return here
