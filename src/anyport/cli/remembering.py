"""Which checkpoint a bundle's weights were read from on this machine: kept beside the bundle, never in it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from anyport.errors import UsageError


def weights_for(bundle: Path, given: Path | None) -> Path | None:
    """Return the folder of weights that stands on the command line, or did for the same bundle before.

    Raises:
        UsageError: The file that keeps them is damaged.
    """
    return given if given is not None else _kept().get(_key(bundle))


def remember_weights(bundle: Path, given: Path | None) -> None:
    """Keep the folder that was given for a bundle: its weights were found there."""
    if given is None:
        return
    from anyport.bundle import write_file_atomically

    kept = {key: str(folder) for key, folder in _kept().items()} | {_key(bundle): str(given.resolve())}
    path = _file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file_atomically(path, json.dumps(kept, indent=1, sort_keys=True).encode(), force=True)


def _file() -> Path:
    """Return where it is kept: https://specifications.freedesktop.org/basedir-spec."""
    return (
        Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "anyport" / "weights.json"
    )


def _key(bundle: Path) -> str:
    """Return what stands for a bundle, or for a plain .onnx file, wherever it lies."""
    seal = bundle / "SEAL" if bundle.is_dir() else bundle
    return hashlib.sha256(seal.read_bytes()).hexdigest() if seal.is_file() else ""


def _kept() -> dict[str, Path]:
    path = _file()
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
        return {str(key): Path(folder) for key, folder in content.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as err:
        raise UsageError(
            f"'{path.name}', which keeps where the weights of bundles are, cannot be read: {err}",
            where=str(path),
            do="remove it, and give --weights DIR again",
        ) from err
