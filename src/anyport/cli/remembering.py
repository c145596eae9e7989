"""Which checkpoint a bundle's weights were read from on this machine: kept beside the bundle, never in it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import click

from anyport.errors import AnyportError, UsageError


def folder_of(target: Path, given: Path | None) -> Path | None:
    """Return the folder of the weights that a target refers to; ``None`` if it has its own.

    Raises:
        UsageError: A folder is given, and is none, or the target has its weights; or see `weights_for`.
    """
    if not _refers(target):
        if given is not None:
            raise UsageError(f"'{target.name}' has its weights", where="--weights", do="leave it out")
        return None
    if given is not None and not given.is_dir():
        raise UsageError(f"there is no folder '{given}'", where="--weights", do="name that of the checkpoint")
    return weights_for(target, given)


def _refers(target: Path) -> bool:
    """Say whether weights lie outside; of what cannot be read whoever opens it says why."""
    from anyport.bundle.disk import read_capped
    from anyport.bundle.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, decode_manifest, files_outside
    from anyport.errors import BundleError
    from anyport.runtime.shards import shards_of

    try:
        if target.is_file() and target.suffix == ".onnx":
            return bool(shards_of(target))
        if not target.is_dir():  # what is packed has its weights
            return False
        content = read_capped(target / MANIFEST_NAME, MAX_MANIFEST_BYTES)
        return bool(files_outside(decode_manifest(content)))
    except (BundleError, ValueError):
        return False


def weights_for(bundle: Path, given: Path | None) -> Path | None:
    """Return the folder of weights that stands on the command line, or did for the same bundle before.

    Raises:
        UsageError: The file that keeps them is damaged.
    """
    return given if given is not None else _kept().get(_key(bundle))


def remember_weights(bundle: Path, given: Path | None) -> None:
    """Keep the folder that was given for a bundle: its weights were found there. A failure is only told."""
    if given is None:
        return
    from anyport.bundle import write_file_atomically

    path = _file()
    try:
        kept = {key: str(folder) for key, folder in _kept().items()} | {_key(bundle): str(given.resolve())}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file_atomically(path, json.dumps(kept, indent=1, sort_keys=True).encode(), force=True)
    except (AnyportError, OSError) as err:
        why = err.what if isinstance(err, AnyportError) else str(err)
        click.echo(f"note: where its weights are is not remembered: {why}", err=True)


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
