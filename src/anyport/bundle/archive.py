"""A bundle as one file: `pack` and `unpack` are each other's inverse, byte by byte."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from anyport.bundle.disk import disk_errors, read_capped, size_text
from anyport.bundle.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MAX_SEAL_BYTES,
    SEAL_NAME,
    decode_sealed,
    files_outside,
)
from anyport.bundle.onevariant import with_one_variant
from anyport.bundle.reading import Bundle, open_bundle
from anyport.bundle.writing import Staging, staged_file, sync_tree
from anyport.bundle.zipform import extract_zip, write_zip
from anyport.errors import UsageError


def pack(path: str | Path, output: str | Path, *, variant: str | None = None, force: bool = False) -> Path:
    """Write a bundle as one zip: the same bundle gives the same bytes. Every digest is checked.

    Args:
        path: A bundle.
        output: The zip.
        variant: The only one that is kept; all if absent.
        force: Replace a file that exists.

    Raises:
        BundleError: The bundle is not whole, or the disk is full.
        UsageError: The output exists, there is no such variant, or it refers to weights elsewhere.
    """
    with ExitStack() as stack:
        bundle = stack.enter_context(open_bundle(path))
        new = stack.enter_context(staged_file(Path(output), force=force))
        if variant is not None:
            bundle = stack.enter_context(with_one_variant(bundle, variant, Path(output)))
        _check_weights_inside(bundle)
        small = {
            MANIFEST_NAME: read_capped(bundle.folder / MANIFEST_NAME, MAX_MANIFEST_BYTES),
            SEAL_NAME: read_capped(bundle.folder / SEAL_NAME, MAX_SEAL_BYTES),
        }
        manifest = decode_sealed(small[MANIFEST_NAME], small[SEAL_NAME], str(bundle.path))
        with disk_errors("write", Path(output), bundle.size_bytes), new.open("xb") as archive:
            write_zip(archive, bundle.folder, manifest, small)
    return Path(output)


def _check_weights_inside(bundle: Bundle) -> None:
    shards = files_outside(bundle.manifest)
    if shards:
        raise UsageError(
            f"the bundle refers to a checkpoint that is not in it: {len(shards)} files, "
            f"{size_text(sum(shards.values()))}",
            where=str(bundle.path),
            do="build it with --weights copy, and pack that; or keep folder and checkpoint",
        )


def unpack(path: str | Path, output: str | Path, *, force: bool = False) -> Path:
    """Write the folder of a packed bundle. Every byte is checked.

    Args:
        path: A zip that `pack` made.
        output: The folder.
        force: Replace a bundle that exists.

    Raises:
        BundleError: The zip is not, byte by byte, a packed bundle, or the disk is full.
        UsageError: The output exists.
    """
    with Staging.open(Path(output), force=force) as staging:
        manifest = extract_zip(Path(path).resolve(), staging.folder)
        sync_tree(staging.folder, [MANIFEST_NAME, SEAL_NAME, *(file.path for file in manifest.files)])
        staging.commit()
    return Path(output)
