"""Which files hold a checkpoint's weights, and how large they are, without reading a weight.

A folder, a Hugging Face id or a single file. Of a folder, the files are chosen as transformers and diffusers
choose them: safetensors before pickles, one file before an index of shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyport.bundle import read_header
from anyport.bundle.disk import read_capped
from anyport.bundle.strictjson import parse_json
from anyport.errors import BundleError, SourceError
from anyport.source.lines import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anyport.bundle import TensorEntry

_NAMES: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_WEIGHTS: Final = (".safetensors", ".bin")
_PIPELINE: Final = "model_index.json"  # of diffusers: its folders are models
AGAIN: Final = "download the checkpoint again; all files must come from one version of it"
_BEGUN: Final = (".cache/huggingface/download/**/*.incomplete", "../../blobs/*.incomplete")  # of hf download
_MAX_INDEX_BYTES: Final = 64 << 20
_POINTER: Final = b"version https://git-lfs"
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files that a model is loaded from.

    Attributes:
        sizes: File -> bytes.
        is_here: Nothing needs to be downloaded.
        absent: Files that an index names and that are not there, where that is allowed.
        absent_bytes: Of their tensors, as the indexes say.
        unsized: Models whose files are not there, and that have no index to say how large they are.
    """

    sizes: Mapping[str, int]
    is_here: bool = True
    absent: tuple[str, ...] = ()
    absent_bytes: int = 0
    unsized: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of all files whose size is known."""
        return sum(self.sizes.values()) + self.absent_bytes


def weight_files(checkpoint: str | Path) -> WeightFiles:
    """Find the files of weights, and check that they are whole; of safetensors the headers are read.

    Args:
        checkpoint: A folder, one file, or a Hugging Face id, whose sizes the hub is asked for.

    Raises:
        SourceError: There are none, or some are missing or truncated; they are named.
    """
    path = Path(checkpoint)
    if path.is_file():
        return WeightFiles({path.name: path.stat().st_size})
    if path.is_dir():
        return WeightFiles(_in_folder(path))
    name = str(checkpoint)
    if (snapshot := _downloaded(name)) is not None:
        return WeightFiles(_in_folder(snapshot))
    listing = _hub_listing(name)
    return WeightFiles(_chosen(name, listing, lambda file: _download(name, file)), is_here=False)


def planned_files(checkpoint: str | Path) -> WeightFiles:
    """Find the files of weights as `weight_files` does; a folder may have their indexes alone.

    That is a folder without any file of weights: only its small files were downloaded. One that has some of
    them is an interrupted download, and is refused as ever.

    Args:
        checkpoint: As for `weight_files`.

    Raises:
        SourceError: As for `weight_files`, but for a folder whose indexes say how large all is.
    """
    path = Path(checkpoint)
    indexed = _indexed(path) if path.is_dir() else None
    return weight_files(checkpoint) if indexed is None else indexed


def _indexed(folder: Path) -> WeightFiles | None:
    """Return what the indexes say; ``None`` if there are weights, or no index says how large they are."""
    listing = _listing(folder)
    if any(name.endswith(_WEIGHTS) for name in listing):
        return None
    absent: list[str] = []
    unsized: list[str] = []
    n_bytes = 0
    for prefix in _prefixes(listing, lambda file: folder / file):
        index = next((prefix + name for name in _NAMES if prefix + name in listing), None)
        if index is None:
            unsized.append(prefix.removesuffix("/"))
            continue
        absent += sorted(set(_shards(prefix, folder / index)))
        metadata = _json(folder / index).get("metadata")
        size = metadata.get("total_size") if isinstance(metadata, dict) else None
        if not isinstance(size, int | float) or size <= 1:
            return None
        n_bytes += int(size)
    return (
        WeightFiles({}, absent=tuple(absent), absent_bytes=n_bytes, unsized=tuple(unsized))
        if absent
        else None
    )


def _listing(folder: Path) -> dict[str, int]:
    files = (p for pattern in ("*", "*/*") for p in folder.glob(pattern) if p.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _in_folder(folder: Path) -> dict[str, int]:
    sizes = chosen_files(folder)
    for file in sizes:
        if file.endswith(".safetensors"):
            weights_header(folder / file)
    return sizes


def chosen_files(folder: Path) -> dict[str, int]:
    """Return the files of weights in a folder and their sizes; none of them is opened.

    Raises:
        SourceError: There are none, or some are missing; they are named.
    """
    try:
        return _chosen(folder.name, _listing(folder), lambda file: folder / file)
    except SourceError as err:
        n_begun = sum(len(list(folder.glob(pattern))) for pattern in _BEGUN)
        if not n_begun:
            raise
        raise SourceError(
            f"{err.what}; the download of {n_begun} files was interrupted",
            where=err.where,
            do="give the same command (hf download) once more: it goes on where it was interrupted",
        ) from err


def chosen_index(folder: Path) -> Path | None:
    """Return the index that says which shards a model's folder has; ``None`` if it is no sharded one."""
    found = next((name for name in _NAMES if (folder / name).is_file()), "")
    return folder / found if found.endswith(".json") else None


def weight_map(index: Path) -> dict[str, str]:
    """Return weight -> file, as an index has it.

    Raises:
        SourceError: It is no index, or names a file that does not lie beside it.
    """
    weights = _json(index).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise SourceError(f"'{index.name}' names no weights: it has no 'weight_map'", do=AGAIN)
    for shard in weights.values():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise SourceError(f"'{index.name}' names the file {shard!r}, which does not lie beside it")
    return weights


def _chosen(name: str, listing: Mapping[str, int], place: Callable[[str], Path]) -> dict[str, int]:
    """Return the files that are read, of all that there are; ``place`` says where a small one lies."""
    sizes: dict[str, int] = {}
    for prefix in _prefixes(listing, place):
        found = next((prefix + file for file in _NAMES if prefix + file in listing), None)
        if found is None:
            raise SourceError(
                f"'{name}' has no weights: neither {prefix}{_NAMES[0]} nor another file that is known",
                do=AGAIN,
            )
        files = sorted(set(_shards(prefix, place(found)))) if found.endswith(".json") else [found]
        if missing := [file for file in files if file not in listing]:
            raise SourceError(
                f"'{name}' lacks {len(missing)} of its {len(files)} files of weights: {listed(missing)}",
                where=f"{found} names {'it' if len(missing) == 1 else 'them'}",
                do=AGAIN,
            )
        sizes |= {file: listing[file] for file in files}
    return sizes


def _prefixes(listing: Mapping[str, int], place: Callable[[str], Path]) -> list[str]:
    """Return the folders of a pipeline's models, or the one of a model."""
    if _PIPELINE not in listing:
        return [""]
    parts = _json(place(_PIPELINE))
    return [f"{part}/" for part in parts if f"{part}/config.json" in listing]


def _shards(prefix: str, path: Path) -> Iterator[str]:
    yield from (prefix + shard for shard in weight_map(path).values())


def _json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_capped(path.resolve(), _MAX_INDEX_BYTES), "it")
    except BundleError as err:
        raise SourceError(f"'{path.name}' cannot be read: {err.what}", do=AGAIN) from err
    return content if isinstance(content, dict) else {}


def weights_header(path: Path) -> dict[str, TensorEntry]:
    """Read where each weight lies in a safetensors file; links are followed, as the hub's cache has them.

    Raises:
        SourceError: It is no safetensors file, or is cut off; what is cut off is named.
    """
    real = path.resolve()
    try:
        return read_header(real)
    except BundleError as err:
        if _is_pointer(real):
            raise SourceError(
                f"'{path.name}' is a pointer of Git LFS, the weights themselves were not downloaded",
                where=path.name,
                do="git lfs pull, or hf download",
            ) from err
        raise SourceError(err.what.replace(real.name, path.name), where=path.name, do=AGAIN) from err


def _is_pointer(path: Path) -> bool:
    """Say whether Git LFS has left its few lines in the place of a file."""
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + more


def _downloaded(name: str) -> Path | None:
    """Return the folder of the hub's cache that has a checkpoint's weights already."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(name, file) for file in (*_NAMES, _PIPELINE)]
    except HFValidationError as err:
        raise SourceError(f"'{name}' is no folder here, and no Hugging Face id: {first_line(err)}") from err
    first = next((path for path in found if isinstance(path, str)), None)
    if first is None:
        return None
    folder = Path(first).parent
    try:
        _in_folder(folder)
    except SourceError:  # a download that was interrupted goes on
        return None
    return folder


def _hub_listing(name: str) -> dict[str, int]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        files = HfApi().model_info(name, files_metadata=True).siblings
    except (OSError, ValueError, HfHubHTTPError) as err:
        raise SourceError(
            f"'{name}' is no folder here, and the Hugging Face hub does not say how large it is: "
            f"{first_line(err)}",
            do="download it first (hf download), and give the folder",
        ) from err
    return {file.rfilename: file.size or 0 for file in files or []}


def _download(name: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(name, file))
