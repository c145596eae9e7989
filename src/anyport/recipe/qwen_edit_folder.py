"""The folder that diffusers keeps a pipeline in: checked before anything of it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyport.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INDEX: Final = "model_index.json"
_CONFIGS: Final = (
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "transformer/config.json",
    "vae/config.json",
)
_WEIGHTS: Final[Mapping[str, str]] = {  # component -> how its files of weights are called
    "text_encoder": "model",
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
_HALVES: Final = {"BF16": "bfloat16", "F16": "float16"}
_MAX_HEADER_BYTES: Final = 100 << 20  # as the safetensors library itself allows


def open_folder(checkpoint: str | Path, *, with_weights: bool = True) -> Path:
    """Return the folder of a pipeline; a Hugging Face id is downloaded (once).

    Args:
        checkpoint: A folder, or a Hugging Face id.
        with_weights: Or without them: then only small files are downloaded, and only they must be there.

    Raises:
        SourceError: A file is missing; it is named.
    """
    is_folder = Path(checkpoint).is_dir()
    folder = Path(checkpoint) if is_folder else _download(str(checkpoint), with_weights=with_weights)
    wanted = (INDEX, *_CONFIGS, *(_weights(folder) if with_weights else ()))
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        raise SourceError(
            f"'{Path(checkpoint).name}' lacks {missing[0]}{more}",
            do="download the whole pipeline again: hf download NAME --local-dir FOLDER",
        )
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of settings.

    Raises:
        SourceError: It holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise SourceError(f"{path.parent.name}/{path.name} is no JSON: {err}") from err
    if not isinstance(content, dict):
        raise SourceError(f"{path.parent.name}/{path.name} is a {type(content).__name__}, not an object")
    return content


def stored_halves(folder: Path, component: str) -> tuple[str, ...]:
    """Return the float types of two bytes that the weights of a component are stored in.

    Raises:
        SourceError: A file of weights is cut off, or is none.
    """
    found: set[str] = set()
    for path in sorted((folder / component).glob("*.safetensors")):
        found |= {_HALVES[dtype] for dtype in _dtypes(path) if dtype in _HALVES}
    return tuple(sorted(found))


def _dtypes(path: Path) -> set[str]:
    with path.open("rb") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(n_bytes, _MAX_HEADER_BYTES)))
            return {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, LookupError, TypeError, AttributeError) as err:
            raise SourceError(f"{path.parent.name}/{path.name} is no safetensors file") from err


def _weights(folder: Path) -> Iterator[str]:
    """Name every file of weights."""
    for component, name in _WEIGHTS.items():
        index = folder / component / f"{name}.safetensors.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map", {}).values()
            yield from (f"{component}/{shard}" for shard in sorted(set(shards)))
        else:
            yield f"{component}/{name}.safetensors"


def _download(name: str, *, with_weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    kinds = ("*.json", "*.txt", "*.jinja", *["*.safetensors"] * with_weights)
    folders = ("processor", "scheduler", "text_encoder", "tokenizer", "transformer", "vae")
    wanted = [INDEX, *(f"{folder}/{kind}" for folder in folders for kind in kinds)]
    return Path(snapshot_download(name, allow_patterns=wanted))
