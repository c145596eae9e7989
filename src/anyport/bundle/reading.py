"""Opening a bundle: a folder, or one zip of it. Nothing in it is used before it is checked."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from anyport.bundle.disk import digest_file, disk_errors, is_link, open_regular, read_capped, size_text
from anyport.bundle.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MAX_SEAL_BYTES,
    SEAL_NAME,
    FileEntry,
    GraphEntry,
    Manifest,
    PartEntry,
    decode_sealed,
    seal_text,
)
from anyport.bundle.paths import shown
from anyport.bundle.tree import walk_tree
from anyport.bundle.workshop import leftovers
from anyport.bundle.zipform import MAGIC, check_digest, extract_zip
from anyport.errors import BundleError, UsageError, did_you_mean

if TYPE_CHECKING:
    from types import TracebackType

MAX_READ_BYTES: Final = 64 << 20
_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class GraphFile:
    """One graph of a bundle, checked and ready to be opened.

    Attributes:
        path: The graph file.
        entry: What the manifest says of it.
        part: The part that it computes.
        part_name: Its name.
        variant_name: The variant it belongs to.
    """

    path: Path
    entry: GraphEntry
    part: PartEntry
    part_name: str
    variant_name: str


class Bundle:
    """An open bundle; made by `open_bundle`.

    Attributes:
        path: What was opened: the folder or the zip.
        folder: Where the files are.
        manifest: What the bundle says of itself.
        digest: SHA-256 of the manifest, which stands for the whole bundle.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.manifest, self.digest = _read_manifest(folder)
        self._files = {entry.path: entry for entry in self.manifest.files}
        self._checked: dict[str, _Stamp] = {}
        self._is_open = True
        _check_tree(folder, self._files)
        # a zip is unpacked into a private folder, which goes when the bundle is closed or forgotten
        self._release = weakref.finalize(self, _remove, folder if folder != path else None)

    def file(self, relative: str) -> Path:
        """Return the place of a file, after checking its digest.

        The digest is computed at the first call, and again when the file has been touched since.

        Raises:
            BundleError: The bundle has no such file, or it is not the one that was sealed.
        """
        entry = self._entry(relative)
        path = self.folder / relative
        stamp = self._stamp(path)
        if self._checked.get(relative) != stamp:
            check_digest(entry, digest_file(path, entry.size_bytes), str(self.path))
            self._checked[relative] = stamp
        return path

    def read_bytes(self, relative: str) -> bytes:
        """Return the content of a file of at most `MAX_READ_BYTES`: the very bytes that were checked.

        Raises:
            BundleError: As `file`; or it is too large to be read whole.
        """
        entry = self._entry(relative)
        if entry.size_bytes > MAX_READ_BYTES:
            raise BundleError(
                f"'{relative}' has {size_text(entry.size_bytes)}, too much to be read whole",
                where=str(self.path),
            )
        content = read_capped(self.folder / relative, entry.size_bytes)
        check_digest(entry, seal_text(content).decode().strip().removeprefix("sha256:"), str(self.path))
        return content

    def check(self) -> None:
        """Check everything again: the manifest, which files there are, and every digest.

        Raises:
            BundleError: A byte is not the one that was sealed.
        """
        self._require_open()
        _, digest = _read_manifest(self.folder)
        if digest != self.digest:
            raise BundleError("the bundle has been replaced since it was opened", where=str(self.path))
        _check_tree(self.folder, self._files)
        self._checked.clear()
        for relative in self._files:
            self.file(relative)

    def graph_file(self, part: str, variant: str | None = None) -> GraphFile:
        """Return a graph, after checking every file in and below its folder: a runtime can reach no other.

        Args:
            part: Its name.
            variant: Its name; the default variant if absent.

        Raises:
            BundleError: A file is not the one that was sealed.
            UsageError: There is no such part or variant.
        """
        name = self.manifest.default_variant if variant is None else variant
        if name not in self.manifest.variants:
            raise UsageError(
                f"the bundle has no variant {shown(name)}{did_you_mean(name, self.manifest.variants)}",
                where=str(self.path),
            )
        if part not in self.manifest.parts:
            raise UsageError(
                f"the bundle has no part {shown(part)}{did_you_mean(part, self.manifest.parts)}",
                where=str(self.path),
            )
        entry = self.manifest.variants[name].graphs[part]
        folder = entry.file.rpartition("/")[0]
        for relative in self._files:
            if relative.startswith(folder + "/"):
                self.file(relative)
        return GraphFile(self.folder / entry.file, entry, self.manifest.parts[part], part, name)

    @property
    def size_bytes(self) -> int:
        """How many bytes the listed files have."""
        return sum(entry.size_bytes for entry in self.manifest.files)

    def close(self) -> None:
        """Close the bundle; the unpacked files of a zip are removed."""
        self._is_open = False
        self._release()

    def __enter__(self) -> Self:
        """Return the bundle."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bundle."""
        self.close()

    def _require_open(self) -> None:
        if not self._is_open:
            raise BundleError("the bundle is closed", where=str(self.path), do="open it again")

    def _entry(self, relative: str) -> FileEntry:
        self._require_open()
        entry = self._files.get(relative)
        if entry is None:
            raise BundleError(
                f"the bundle has no file {shown(relative)}{did_you_mean(relative[:240], self._files)}",
                where=str(self.path),
            )
        return entry

    def _stamp(self, path: Path) -> _Stamp:
        with disk_errors("read", path):
            status = path.lstat()
        if is_link(status):
            raise BundleError(f"'{path.name}' is a link", where=str(self.path))
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle and check its manifest, the names and the sizes of its files; digests come with use.

    A zip is unpacked into a private temporary folder, and checked whole, digests too.

    Example::

        with open_bundle("digits.port") as bundle:
            session = open_session(bundle.graph_file("network"))

    Raises:
        BundleError: There is no bundle, or it is damaged, hostile or newer than this anyport.
    """
    place = Path(path)
    if place.is_dir():
        return Bundle(place, place)
    if not place.exists():
        raise _missing(place)
    with disk_errors("read", place), open_regular(place.resolve()) as opened:
        is_zip = opened.read(len(MAGIC)) == MAGIC
    if not is_zip:
        raise BundleError(f"'{place.name}' is no bundle: neither a folder nor a zip", where=str(place))
    return _open_zip(place)


def _open_zip(path: Path) -> Bundle:
    with disk_errors("write", Path(tempfile.gettempdir()) / path.name):
        folder = Path(tempfile.mkdtemp(prefix="anyport-"))
    try:
        extract_zip(path.resolve(), folder)
        bundle = Bundle(path, folder)
        for relative in bundle._files:  # noqa: SLF001 - digested while it was unpacked
            bundle._checked[relative] = bundle._stamp(folder / relative)  # noqa: SLF001
    except BaseException:
        _remove(folder)
        raise
    return bundle


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _missing(path: Path) -> BundleError:
    place = Path(os.path.abspath(path))  # noqa: PTH100 - the name itself, not what it may point to
    waiting = [folder / "old" for folder in leftovers(place) if (folder / "old").exists()]
    return BundleError(
        f"there is no bundle '{path.name}'",
        where=str(path),
        do=f"a build died while replacing it; the bundle before is in '{waiting[0]}'" if waiting else None,
    )


def _read_manifest(folder: Path) -> tuple[Manifest, str]:
    for name in (MANIFEST_NAME, SEAL_NAME):
        if not os.path.lexists(folder / name):
            raise BundleError(f"'{folder.name}' is no bundle: it has no {name}", where=str(folder))
    content = read_capped(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES)
    seal = read_capped(folder / SEAL_NAME, MAX_SEAL_BYTES)
    manifest = decode_sealed(content, seal, str(folder))
    return manifest, seal.decode().strip().removeprefix("sha256:")


def _check_tree(folder: Path, files: dict[str, FileEntry]) -> None:
    """Refuse missing, extra and wrongly sized files, links, and empty folders."""
    missing = set(files)
    for path, size_bytes in walk_tree(folder):
        if path in {MANIFEST_NAME, SEAL_NAME}:
            continue
        entry = files.get(path)
        if entry is None:
            raise BundleError(
                f"the bundle holds {shown(path)}, which its manifest does not list",
                where=str(folder),
                do=f"remove it: {shown(str(folder / path))}",
            )
        if size_bytes != entry.size_bytes:
            raise BundleError(
                f"'{path}' has {size_bytes} bytes, {entry.size_bytes} are sealed",
                where=str(folder),
                do="fetch the bundle again, or build it again",
            )
        missing.discard(path)
    if missing:
        raise BundleError(
            f"the bundle lacks '{min(missing)}'",
            where=str(folder),
            do="fetch the bundle again, or build it again",
        )
