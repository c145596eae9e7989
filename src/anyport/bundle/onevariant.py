"""A bundle with one of its variants alone: what a phone or a package ships."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from anyport.bundle.disk import disk_errors
from anyport.bundle.manifest import Manifest, lossy_files
from anyport.bundle.paths import shown
from anyport.bundle.reading import open_bundle
from anyport.bundle.writing import seal_bundle
from anyport.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyport.bundle.reading import Bundle


@contextmanager
def with_one_variant(bundle: Bundle, variant: str, near: Path) -> Iterator[Bundle]:
    """Yield the bundle with a variant alone, which is its default then; it goes when the block ends.

    Args:
        bundle: Every file that is kept is checked on the way.
        variant: The graphs of the others go, and what proves other lossy ones. PyTorch's own answers stay:
            they prove the parts of a lossy variant that are exact, too.
        near: A file in the folder where it may lie for the time.

    Raises:
        BundleError: A file is not the one that was sealed, or the disk is full.
        UsageError: There is no such variant.
    """
    manifest = bundle.manifest
    if variant not in manifest.variants:
        raise UsageError(
            f"the bundle has no variant {shown(variant)}{did_you_mean(variant, manifest.variants)}",
            where=str(bundle.path),
        )
    kept = kept_files(manifest, variant)
    chosen = {variant: manifest.variants[variant]}
    smaller = msgspec.structs.replace(manifest, variants=chosen, default_variant=variant)
    with tempfile.TemporaryDirectory(prefix=".anyport-", dir=near.parent) as place:
        folder = Path(place) / "bundle"
        with disk_errors("write", near, sum(file.size_bytes for file in manifest.files if file.path in kept)):
            for path in sorted(kept):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.file(path), folder / path)
        seal_bundle(folder, smaller)
        with open_bundle(folder) as opened:
            yield opened


def kept_files(manifest: Manifest, variant: str) -> frozenset[str]:
    """Return which files belong to a variant: its graphs, its proof, and all that is of no variant."""
    graphs = manifest.variants[variant].graphs.values()
    used = {path for graph in graphs for path in (graph.file, graph.weights, graph.modules) if path}
    lossy = (name for name, entry in manifest.variants.items() if entry.metric is not None)
    others = {path for name in lossy if name != variant for path in lossy_files(name)}

    def belongs(path: str) -> bool:
        if path.startswith("parts/"):
            return path in used
        return path not in others

    return frozenset(file.path for file in manifest.files if belongs(file.path))
