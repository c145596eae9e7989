"""A build that was killed goes on: each streamed part, once proven, stays on the disk until the build ends.

In the hidden folder of a build (`anyport.bundle.workshop`), ``done/part.NAME`` says that the files of the
part in ``new/parts/NAME`` are whole, and what was found about them; ``done/task`` holds what the original
program answered. Such a folder gets its name last, when everything in it is on the disk. A build whose
weights are loaded keeps nothing: it takes minutes.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from anyport.build.block_proving import planned
from anyport.build.fingerprint import fingerprint
from anyport.build.parts import PROOF_BYTES, export_and_prove
from anyport.build.proof import recorder_of
from anyport.build.proving import VARIANT
from anyport.build.records import (
    VERSION,
    PartRecord,
    TaskRecord,
    check_entries,
    entries_of,
    read_record,
    restore_part,
    write_part,
    write_record,
)
from anyport.build.streamed_part import export_streamed, reference_of
from anyport.build.streams import open_streams
from anyport.build.task_proving import TaskAnswers, ask_original, why_unproven
from anyport.bundle import Staging, StoredArrays
from anyport.bundle.disk import read_capped, size_text, sync_folder
from anyport.bundle.strictjson import decode_json
from anyport.bundle.task_proof import TASK_ARRAYS_FILE, TASK_FILE, TaskProof, write_task_proof
from anyport.bundle.workshop import HALF
from anyport.bundle.writing import sync_tree
from anyport.errors import BundleError
from anyport.verify.whole_task import proof_of_task, recorded_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from anyport.build.parts import ProvenPart
    from anyport.build.plan import BuildPlan
    from anyport.recipe import Model, Part

    Progress = Callable[[str, str], None]

_PART: Final = "part."
_TASK: Final = "task"
_MAX_TASK_JSON: Final = 16 << 20


@contextmanager
def open_staging(plan: BuildPlan, progress: Progress) -> Iterator[Staging]:
    """Begin the output of a build; what is done of it stays if the build is stopped.

    So it does after an error, such as a full disk or a part that is not proven: what is done is right, and
    took hours. A build that keeps nothing clears everything.

    Args:
        plan: Of the build.
        progress: Told what stays.

    Raises:
        AnyportError: As `Staging.open`.
    """
    resumes = plan.description.build.weights is not None
    with Staging.open(plan.output, force=plan.settings.force, resume=resumes) as staging:
        try:
            yield staging
        except BaseException:  # Ctrl-C and SIGTERM, too
            _tell_what_stays(staging, progress)
            raise


def _tell_what_stays(staging: Staging, progress: Progress) -> None:
    if not staging.stays or staging.is_committed:
        return
    prune(staging)
    place = staging.done.parent
    n_bytes = sum(path.lstat().st_size for path in place.rglob("*") if path.is_file())
    progress(
        "resume",
        f"what is done stays, {size_text(n_bytes)}: the same command goes on from there, and "
        f"rm -r '{place}' removes it",
    )


def prune(staging: Staging) -> None:
    """Remove from a build's hidden folder what is not whole."""
    for path in staging.done.glob(f"{HALF}*"):
        shutil.rmtree(path)
    parts = staging.folder / "parts"
    whole = {name.removeprefix(_PART) for name in _names(staging.done)}
    for path in [*staging.folder.glob("*"), *parts.glob("*")]:
        if path == parts or (path.parent == parts and path.name in whole):
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _names(done: Path) -> list[str]:
    return sorted(path.name for path in done.glob("*") if not path.name.startswith(HALF))


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is done of a build, on the disk.

    Attributes:
        staging: Of the build.
        model: That is built.
        plan: Of the build.
        progress: Told what is done, and what was done already.
        key: What decides the parts; empty where nothing is kept.
    """

    staging: Staging
    model: Model
    plan: BuildPlan
    progress: Progress
    key: Mapping[str, str] = field(default_factory=dict)

    def asked(self) -> TaskAnswers | None:
        """Return what the original program answers; see `anyport.build.task_proving.ask_original`."""
        found = self._answers_done() if why_unproven(self.model, self.plan) is None else None
        if found is not None:
            self.progress("resume", "the original program has answered a build that did not end")
            return found
        found = ask_original(self.model, self.plan, self.progress)
        if found is not None and self.key:
            with self._entry(_TASK) as folder:
                write_task_proof(folder, *proof_of_task(found.task, found.recorded))
                files = entries_of(folder, (TASK_FILE, TASK_ARRAYS_FILE))
                write_record(folder, TaskRecord(VERSION, dict(self.key), files))
        return found

    def proven(self) -> list[ProvenPart]:
        """Return all parts, exported and proven.

        Raises:
            AnyportError: A part cannot be exported, or is not what it should be.
        """
        return [self._proven(part) for part in self.model.parts]

    def _proven(self, part: Part) -> ProvenPart:
        found = self._part_done(part) if part.stored is not None else None
        if found is not None:
            self.progress("resume", f"{part.name}   was exported and proven by a build that did not end")
            self.progress("resume", found.verdict.summary())
            return found
        folder = self._folder(part)
        folder.mkdir(parents=True)
        export = export_and_prove if part.stored is None else export_streamed
        proven = export(self.model, part, self.plan, self.progress, folder)
        if part.stored is not None and self.key:
            sync_tree(self.staging.folder, _below(self.staging.folder, folder))
            with self._entry(f"{_PART}{part.name}") as place:
                write_part(place, proven, self.key)
        return proven

    def _folder(self, part: Part) -> Path:
        return self.staging.folder / "parts" / part.name / VARIANT

    def _answers_done(self) -> TaskAnswers | None:
        folder = self.staging.done / _TASK
        if not folder.is_dir():
            return None
        try:
            check_entries(folder, read_record(folder, TaskRecord).files)
            content = read_capped(folder / TASK_FILE, _MAX_TASK_JSON)
            proof = decode_json(content, TaskProof, TASK_FILE, str(folder))
            return TaskAnswers(proof.task, recorded_answers(proof, StoredArrays(folder / TASK_ARRAYS_FILE)))
        except BundleError as err:
            self.forget(_TASK, err.what)
            return None

    def _part_done(self, part: Part) -> ProvenPart | None:
        name = f"{_PART}{part.name}"
        place = self.staging.done / name
        if not place.is_dir():
            return None
        made, stream = self._folder(part), open_streams(self.model)[part.name]
        spec, cases = planned(part, self.plan.settings)
        reference = reference_of(part, stream.inside(part), cases)
        blank = recorder_of(part, self.plan.settings, PROOF_BYTES // len(self.model.parts), reference)
        try:
            record = read_record(place, PartRecord)
            found = restore_part(record, part, (spec, cases), (place, made), blank)
        except BundleError as err:
            self.forget(name, err.what)
            return None
        for path in made.iterdir():  # a fused form, say
            if path.name not in {entry.path for entry in record.files}:
                path.unlink()
        is_reference = self.plan.description.build.weights == "reference"
        return replace(found, weights_folder=stream.root if is_reference else None)

    def forget(self, name: str, why: str) -> None:
        """Remove what an earlier build had done."""
        part = name.removeprefix(_PART)
        noun = "the original program's answers" if name == _TASK else part
        self.progress("resume", f"{noun}   made anew: {why}")
        shutil.rmtree(self.staging.done / name)
        self.staging.stays = bool(_names(self.staging.done))
        if name != _TASK:
            shutil.rmtree(self.staging.folder / "parts" / part, ignore_errors=True)

    @contextmanager
    def _entry(self, name: str) -> Iterator[Path]:
        """Yield a folder that gets its name when everything in it is on the disk."""
        done = self.staging.done
        half = done / f"{HALF}{name}"
        half.mkdir(parents=True)
        yield half
        sync_tree(half, _below(half, half))
        half.rename(done / name)
        self.staging.stays = True
        for folder in (done, done.parent, done.parent.parent):
            sync_folder(folder)


def _below(root: Path, folder: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in folder.rglob("*") if path.is_file()]


def open_ledger(staging: Staging, model: Model, plan: BuildPlan, progress: Progress) -> Ledger:
    """Look at what an earlier build of this output had done, and remove what is of other things or not whole.

    Args:
        staging: From `open_staging`.
        model: With the user's words laid over it.
        plan: Of the build.
        progress: Told what is not used, and why.

    Raises:
        SourceError: The checkpoint does not fit the module.
    """
    if plan.description.build.weights is None:
        return Ledger(staging, model, plan, progress)
    ledger = Ledger(staging, model, plan, progress, fingerprint(model, plan))
    staging.is_inherited = False
    for name in _names(staging.done):
        why = _why_not(staging.done / name, ledger.key)
        if why:
            ledger.forget(name, why)
    prune(staging)
    return ledger


def _why_not(folder: Path, key: Mapping[str, str]) -> str:
    """Say why a record is of no use; empty if it may be."""
    try:
        record: PartRecord | TaskRecord = (
            read_record(folder, TaskRecord) if folder.name == _TASK else read_record(folder, PartRecord)
        )
    except BundleError as err:
        return err.what
    if record.version != VERSION:
        return "another version of anyport recorded it"
    other = sorted(what for what in {*key, *record.key} if key.get(what) != record.key.get(what))
    if not other:
        return ""
    verb = "are" if len(other) > 1 or other[0].endswith("s") else "is"
    return f"{' and '.join(other)} {verb} not what the build that did not end had"
