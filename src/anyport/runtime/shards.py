"""Graphs whose weights lie in a checkpoint: found, and checked before a session reads them.

ONNX Runtime checks neither what a weight is nor where it begins: an offset that is wrong by one byte gives
garbage. So each weight of such a graph is held against the header of its file first.

A session of onnxruntime itself opens such a graph with one line more; it checks nothing::

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", FOLDER)
    options.enable_mem_pattern = False  # or one buffer for all weights is planned
    session = onnxruntime.InferenceSession("model.onnx", options, disabled_optimizers=["ConstantFolding"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyport.bundle.shards import check_shards, shards_from_text, weights_root
from anyport.errors import BundleError, SessionError
from anyport.runtime.onnxfile import outside_tensors, read_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anyport.bundle.shards import ShardEntry
    from anyport.bundle.tensorfile import TensorEntry
    from anyport.runtime.onnxfile import OutsideTensor
    from anyport.runtime.options import SessionOptions

SHARDS: Final = "anyport.shards"  # of the file's metadata
_CODES: Final[Mapping[int, str]] = {  # onnx.TensorProto.DataType -> safetensors
    1: "F32",
    2: "U8",
    3: "I8",
    5: "I16",
    6: "I32",
    7: "I64",
    9: "BOOL",
    10: "F16",
    11: "F64",
    16: "BF16",
}


def shards_of(path: Path) -> tuple[ShardEntry, ...]:
    """Return the files of weights that a graph refers to; none for a graph that has its weights.

    Raises:
        BundleError: What it says of them cannot be read.
        ValueError: It is no .onnx file.
    """
    text = read_metadata(path).get(SHARDS)
    return shards_from_text(text) if text is not None else ()


def folder_of_weights(
    path: Path, where: str, options: SessionOptions, declared: Sequence[ShardEntry] | None = None
) -> Path | None:
    """Return the folder that a session reads weights from; ``None`` for a graph that has its own.

    Args:
        path: The .onnx file.
        where: What messages call it.
        options: Name the folder.
        declared: What the bundle's manifest says of the files.

    Raises:
        SessionError: No folder is named, or it does not hold the weights that the graph was made of.
    """
    try:
        shards = shards_of(path)
    except (BundleError, ValueError) as err:
        raise SessionError(f"{path.name} is no whole .onnx file: {err}", where=where) from err
    if declared is not None and tuple(declared) != shards:
        raise SessionError("the graph refers to other files of weights than the manifest says", where=where)
    if not shards:
        return None
    if options.weights_folder is None:
        total_gb = sum(shard.size_bytes for shard in shards) / 1e9
        raise SessionError(
            f"the weights are not in the bundle: it refers to {len(shards)} files of {total_gb:.1f} GB, such "
            f"as '{shards[0].file}'",
            where=where,
            do="name their folder: --weights DIR, or SessionOptions(weights_folder=Path(DIR))",
        )
    root = weights_root(options.weights_folder, shards)
    try:
        headers = check_shards(root, shards, whole=options.whole_digest)
    except BundleError as err:
        raise SessionError(err.what, where=err.where, do=err.do) from err
    for tensor in outside_tensors(path):
        _check(tensor, headers, where)
    return root


def _check(tensor: OutsideTensor, headers: Mapping[str, Mapping[str, TensorEntry]], where: str) -> None:
    entry = headers.get(tensor.file, {}).get(tensor.name)
    if entry is None:
        raise SessionError(f"the weight '{tensor.name}' is not in '{tensor.file}'", where=where)
    found = (entry.dtype, entry.shape, entry.offset, entry.size_bytes)
    expected = (_CODES.get(tensor.data_type), tensor.shape, tensor.offset, tensor.size_bytes)
    if found != expected:
        raise SessionError(
            f"the weight '{tensor.name}' is {_words(*found)} in '{tensor.file}', the graph reads "
            f"{_words(*expected)}",
            where=where,
        )


def _words(dtype: str | None, shape: tuple[int, ...], offset: int, size_bytes: int | None) -> str:
    return f"{dtype}{list(shape)} at byte {offset}, {size_bytes} bytes"
