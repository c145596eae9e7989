"""Making a bundle so that its name only ever stands for a whole one, and sealing it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec

from anyport.bundle.disk import DISK_FULL, digest_file, disk_error, disk_errors, sync_file, sync_folder
from anyport.bundle.manifest import (
    MANIFEST_NAME,
    SEAL_NAME,
    FileEntry,
    Manifest,
    encode_manifest,
    seal_text,
)
from anyport.bundle.paths import check_paths
from anyport.bundle.tree import walk_tree
from anyport.bundle.workshop import Workshop, open_workshop
from anyport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY})


class Staging:
    """A folder in the making; it gets the name of the output when it is whole, or never.

    The output appears by one rename. With ``force`` the old output is moved aside and the new one moved
    in: two renames, and a process that dies between them leaves no output until the next build of it, which
    first puts the old one back.

    Example::

        with Staging.open(Path("digits.port")) as staging:
            (staging.folder / "MODEL_CARD.md").write_text("…")
            seal_bundle(staging.folder, manifest)
            staging.commit()

    Attributes:
        output: The name it gets.
        folder: Where it is made: empty, on the same file system as the output, hidden.
        is_inherited: A dead build has left there what it had done; whoever looks at that says so here.
        stays: If nothing is committed, everything is left to the next build of the output.
    """

    def __init__(self, workshop: Workshop, *, force: bool) -> None:
        self.output = workshop.output
        self.folder = workshop.new
        self.is_inherited = self.stays = workshop.is_inherited
        self._workshop = workshop
        self._force = force
        self._is_open = True

    @classmethod
    def open(cls, output: Path, *, force: bool = False, resume: bool = False) -> Self:
        """Begin a folder.

        Args:
            output: The name it shall get.
            force: Replace an output that exists, if it is a bundle or an empty folder.
            resume: Take over the folder of a dead build that has done something; it is not empty then.

        Raises:
            BundleError: The place cannot be written.
            UsageError: The output exists, or is nothing that may be replaced.
        """
        workshop = _open_checked(output, resume=resume)
        try:
            check_output(workshop.output, force=force, is_folder=True)
            with disk_errors("write", output):
                workshop.new.mkdir(exist_ok=workshop.is_inherited)
        except BaseException:
            workshop.leave() if workshop.is_inherited else workshop.close()
            raise
        return cls(workshop, force=force)

    @property
    def done(self) -> Path:
        """Where it is said what of the folder is whole; what is called ``half.…`` there is not."""
        return self._workshop.done

    @property
    def is_committed(self) -> bool:
        """Whether the folder has its name, or is gone."""
        return not self.folder.is_dir()

    def commit(self) -> Path:
        """Give the folder its name.

        Raises:
            BundleError: The file system refuses.
            UsageError: The output has come into being meanwhile.
        """
        check_output(self.output, force=self._force, is_folder=True)
        if self._force and os.path.lexists(self.output):
            with disk_errors("replace", self.output):
                self.output.rename(self._workshop.old)
        _rename(self.folder, self.output)
        sync_folder(self.output.parent)
        self.close()
        return self.output

    def close(self) -> None:
        """Remove what was not committed, unless it stays."""
        if self._is_open:
            self._is_open = False
            self._workshop.leave() if self.stays and not self.is_committed else self._workshop.close()

    def __enter__(self) -> Self:
        """Return the staging."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not committed, unless it stays; a full disk is told in plain words."""
        try:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise disk_error(error, "write", self.output) from error
        finally:
            self.close()


@contextmanager
def staged_file(output: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a path to write; the file gets the name of the output when the block ends well.

    Raises:
        BundleError: The disk is full or cannot be written.
        UsageError: The output exists; with ``force``: it is no regular file.
    """
    workshop = _open_checked(output)
    try:
        check_output(workshop.output, force=force, is_folder=False)
        with _full_disk_explained(workshop.output):
            yield workshop.new
        sync_file(workshop.new)
        check_output(workshop.output, force=force, is_folder=False)
        with disk_errors("write", workshop.output):
            workshop.new.replace(workshop.output)
        sync_folder(workshop.output.parent)
    finally:
        workshop.close()


@contextmanager
def staged_files(outputs: Sequence[Path], *, force: bool = False) -> Iterator[Path]:
    """Yield a folder; when the block ends well, the files made in it get the names of the outputs.

    Args:
        outputs: Files of one folder that belong together. The first one is moved last, so that it never
            stands without the others; what was not made is left out.
        force: Replace files that exist.

    Raises:
        BundleError: The disk is full or cannot be written.
        UsageError: An output exists; with ``force``: it is no regular file.
    """
    workshop = _open_checked(outputs[0])
    try:
        for output in outputs:
            check_output(output, force=force, is_folder=False)
        with _full_disk_explained(workshop.output):
            workshop.new.mkdir()
            yield workshop.new
        for output in reversed(outputs):
            _move_if_made(workshop.new / output.name, output)
        sync_folder(workshop.output.parent)
    finally:
        workshop.close()


def write_file_atomically(output: Path, blocks: bytes | Iterable[bytes], *, force: bool = False) -> Path:
    """Write a file that is either whole or not there.

    Args:
        output: The file.
        blocks: Its content, at once or in blocks.
        force: Replace a file that exists.

    Raises:
        BundleError: The disk is full or cannot be written.
        UsageError: The output exists; with ``force``: it is no regular file.
    """
    pieces = [blocks] if isinstance(blocks, bytes) else blocks
    with staged_file(output, force=force) as path, disk_errors("write", output), path.open("xb") as opened:
        for block in pieces:
            opened.write(block)
    return output


def seal_bundle(folder: Path, manifest: Manifest) -> tuple[Manifest, str]:
    """Digest every file of a folder, and write ``manifest.json`` and ``SEAL`` into it.

    A folder that is sealed already is sealed anew. Everything is on the disk when this returns.

    Args:
        folder: Everything but the manifest and the seal; links, empty folders and odd names are refused.
        manifest: Its ``files`` are replaced.

    Returns:
        The manifest with its files, and its own digest (64 hexadecimal digits, as in the seal).

    Raises:
        BundleError: The folder or the manifest is not what a bundle may be, or the disk is full.
    """
    found = {path: size for path, size in walk_tree(folder) if path not in {MANIFEST_NAME, SEAL_NAME}}
    check_paths(found, str(folder))
    files = [FileEntry(path, found[path], digest_file(folder / path, found[path])) for path in sorted(found)]
    sealed = msgspec.structs.replace(manifest, files=files)
    content = encode_manifest(sealed)
    seal = seal_text(content)
    for name, text in ((MANIFEST_NAME, content), (SEAL_NAME, seal)):
        with disk_errors("write", folder / name, len(text)):
            (folder / name).write_bytes(text)
    sync_tree(folder, [*found, MANIFEST_NAME, SEAL_NAME])
    return sealed, seal.decode().strip().removeprefix("sha256:")


def sync_tree(folder: Path, paths: Iterable[str]) -> None:
    """Wait until these files, and the folders they are in, are on the disk."""
    folders = {folder}
    for path in paths:
        sync_file(folder / path)
        folders.update(folder / parent for parent in Path(path).parents)
    for each in sorted(folders):
        sync_folder(each)


def check_output(output: Path, *, force: bool, is_folder: bool) -> None:
    """Refuse an output that exists, and with ``force`` one that is not surely ours to replace.

    Raises:
        UsageError: It exists, or is a link, or is nothing that anyport writes.
    """
    try:
        mode = output.lstat().st_mode
    except FileNotFoundError:
        return
    if not force:
        raise UsageError(
            f"'{output.name}' exists already",
            where=str(output),
            do="choose another name, or add --force to replace it",
        )
    if not (_is_bundle(output, mode) if is_folder else stat.S_ISREG(mode)):
        wanted = "a bundle" if is_folder else "a file"
        raise UsageError(
            f"'{output.name}' is not {wanted}, and --force replaces nothing else",
            where=str(output),
            do="choose another name, or remove it yourself",
        )


def _is_bundle(output: Path, mode: int) -> bool:
    """Say whether a folder is a bundle, whole or damaged, or empty: so that --force costs no one a home."""
    if not stat.S_ISDIR(mode):
        return False
    with disk_errors("read", output):
        return (output / SEAL_NAME).is_file() or not any(output.iterdir())


def _open_checked(output: Path, *, resume: bool = False) -> Workshop:
    place = Path(os.path.abspath(output))  # noqa: PTH100 - resolve() would follow a link in place of the output
    if not place.name:
        raise UsageError(f"'{output}' is no name for an output")
    if not place.parent.is_dir():
        raise UsageError(
            f"the folder of '{place.name}' does not exist",
            where=str(place.parent),
            do=f"mkdir -p '{place.parent}'",
        )
    for folder in place.resolve().parents:
        if (folder / SEAL_NAME).is_file() and (folder / MANIFEST_NAME).is_file():
            raise UsageError(
                f"'{place.name}' would lie inside the sealed bundle '{folder.name}' and break it",
                where=str(place),
                do="choose a place outside of it",
            )
    return open_workshop(place, resume=resume)


def _rename(new: Path, output: Path) -> None:
    try:
        new.rename(output)
    except OSError as err:
        if err.errno in _TAKEN:
            raise UsageError(
                f"'{output.name}' exists by now: another build made it", where=str(output)
            ) from err
        raise disk_error(err, "write", output) from err


def _move_if_made(made: Path, output: Path) -> None:
    if made.is_file():
        sync_file(made)
        with disk_errors("write", output):
            made.replace(output)


@contextmanager
def _full_disk_explained(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        if err.errno in DISK_FULL:
            raise disk_error(err, "write", output) from err
        raise
