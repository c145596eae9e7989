"""Arrays for people, and arrays in a file."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from anyport.bundle import write_file_atomically
from anyport.bundle.writing import check_output
from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_SHOWN: Final = 16


def summary(array: np.ndarray) -> dict[str, Any]:
    """Describe an array: ``text`` for people; type, shape, range and few values for programs.

    >>> summary(np.array([[1.5, 2.5]], np.float32))["text"]
    'float32[1, 2]   min 1.5, mean 2, max 2.5'
    """
    facts: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    text = f"{array.dtype}{list(array.shape)}"
    numbers = array.astype(np.float64)
    is_finite = np.isfinite(numbers)
    if is_finite.any():
        kept = numbers[is_finite]
        facts |= {"min": float(kept.min()), "mean": float(kept.mean()), "max": float(kept.max())}
        text += f"   min {facts['min']:.6g}, mean {facts['mean']:.6g}, max {facts['max']:.6g}"
    facts["n_not_finite"] = int(array.size - is_finite.sum())
    if facts["n_not_finite"]:
        text += f", {facts['n_not_finite']} not finite"
    elif array.size <= _MAX_SHOWN:
        facts["values"] = array.tolist()
    return facts | {"text": text}


def npz_target(output: str, *, force: bool) -> Path:
    """Return the file that outputs are to be written to, before anything is computed.

    Raises:
        UsageError: Its name does not end in ``.npz``, or it exists and is not to be replaced.
    """
    path = Path(output)
    if path.suffix != ".npz":
        raise UsageError(f"the output file '{path}' must end in .npz")
    check_output(path, force=force, is_folder=False)
    return path


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, force: bool) -> None:
    """Write arrays to an .npz, whole or not at all.

    ``numpy.savez`` cannot write an array called ``file``, since names are its keyword arguments.

    Raises:
        BundleError: The file cannot be written.
        UsageError: The file exists, and is not to be replaced.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    write_file_atomically(path, content.getvalue(), force=force)
