"""What was found about a streamed part, on the disk: so that a build that was killed need not find it again.

A record is a folder: ``answers.safetensors`` holds PyTorch's answers, ``record`` everything else, in
MessagePack (which has infinity) behind its SHA-256. The build that goes on reads it, and nobody else.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from anyport.build.parts import ProvenPart
from anyport.build.proving import Recorded, Recorder
from anyport.bundle import FileEntry, StoredArrays, TensorFileWriter
from anyport.bundle.disk import digest_file, disk_errors, read_capped
from anyport.bundle.manifest import Step
from anyport.bundle.tensorfile import dtype_code
from anyport.cases import Case, CaseKind, Fill
from anyport.errors import BundleError
from anyport.graph.attention import AttentionSite
from anyport.graph.storing import Graph
from anyport.verify import Answer, Floor, Verdict
from anyport.verify.finding import Finding, Numbers
from anyport.verify.verdict import Leg

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from anyport.recipe import Part
    from anyport.verify import CasePlan, PartSpec

VERSION: Final = 1  # of the records
RECORD: Final = "record"
ANSWERS: Final = "answers.safetensors"
_MAX_BYTES: Final = 256 << 20
_DIGEST_BYTES: Final = 32
_T = TypeVar("_T")
_Sizes = tuple[int, ...]


class _Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of an artefact is on the disk; fields are called as there."""


class FindingWords(_Words, frozen=True):
    """Of a `Finding`."""

    case: str
    case_kind: str
    case_number: int
    n_cases: int
    sizes: dict[str, int]
    output: str
    numbers: Numbers | None
    floor: Floor | None
    passed: bool
    reason: str


class GraphWords(_Words, frozen=True):
    """Of a `Graph`; its files have their names only."""

    path: str
    weights: str | None
    opset: int
    operators: dict[str, int]
    n_parameters: int
    stored: dict[str, int]
    warnings: tuple[str, ...]


class CaseWords(_Words, frozen=True):
    """Of a `Case`; ``stored`` names its arrays in the file of answers."""

    name: str
    kind: CaseKind
    sizes: dict[str, int]
    fills: dict[str, Fill]
    stored: dict[str, str]


class AnsweredWords(_Words, frozen=True):
    """Of a case and its `Answer`; ``shapes`` are those of a `Recorded`."""

    case: CaseWords
    outputs: dict[str, str]
    floors: dict[str, Floor]
    answer_shapes: dict[str, _Sizes]
    shapes: dict[str, _Sizes] = {}


class PartRecord(_Words, frozen=True):
    """All that was found about a part.

    Attributes:
        version: Of the record.
        key: What it was made of; see `anyport.build.fingerprint`.
        files: Of the part's folder: all that belong to its graph.
        answers: The file of answers.
        graph: Of a `ProvenPart`, and so are the others.
    """

    version: int
    key: dict[str, str]
    files: list[FileEntry]
    answers: FileEntry
    graph: GraphWords
    legs: list[Leg]
    findings: list[FindingWords]
    origin: str
    kept: list[AnsweredWords]
    recorded: list[AnsweredWords]
    omitted: list[str]
    steps: list[Step]
    attention: list[AttentionSite]


class TaskRecord(_Words, frozen=True):
    """What the original program answered: the files of a proof of the whole task."""

    version: int
    key: dict[str, str]
    files: list[FileEntry]


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────
class _Shelf:
    """Arrays on their way into one file; one that is held twice is stored once."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._names: dict[int, str] = {}

    def put(self, array: np.ndarray) -> str:
        name = self._names.setdefault(id(array), str(len(self._names)))
        self.arrays[name] = array  # held, so that the id stays its own
        return name

    def write(self, path: Path) -> None:
        order = sorted(self.arrays, key=lambda name: (-self.arrays[name].dtype.itemsize, int(name)))
        forms = [(name, dtype_code(self.arrays[name].dtype), self.arrays[name].shape) for name in order]
        with TensorFileWriter(path, forms) as writer:
            for name in order:
                writer.write(name, self.arrays[name])


def write_part(folder: Path, proven: ProvenPart, key: Mapping[str, str]) -> None:
    """Write what was found about a part.

    Cost: every file of the graph is read once, for its digest.

    Args:
        folder: Empty.
        proven: Its graph's folder holds what belongs to it and nothing else.
        key: What it was made of.

    Raises:
        BundleError: The disk is full.
    """
    shelf, recorder, place = _Shelf(), proven.recorder, proven.graph.path.parent
    kept = [_answered(shelf, case, answer) for case, answer in recorder.kept]
    recorded = [_answered(shelf, one.case, one.answer, one.shapes) for one in recorder.recorded]
    shelf.write(folder / ANSWERS)
    record = PartRecord(
        version=VERSION,
        key=dict(key),
        files=entries_of(place, (path.name for path in place.iterdir())),
        answers=entries_of(folder, [ANSWERS])[0],
        graph=_graph_words(proven.graph),
        legs=list(proven.verdict.legs),
        findings=[_words(one, FindingWords) for one in proven.verdict.findings],
        origin=proven.verdict.origin,
        kept=kept,
        recorded=recorded,
        omitted=list(recorder.omitted),
        steps=list(proven.steps),
        attention=list(proven.attention),
    )
    write_record(folder, record)


def write_record(folder: Path, record: PartRecord | TaskRecord) -> None:
    """Write ``record`` into a folder.

    Raises:
        BundleError: The disk is full.
    """
    content = msgspec.msgpack.encode(record)
    with disk_errors("write", folder / RECORD, len(content)):
        (folder / RECORD).write_bytes(hashlib.sha256(content).digest() + content)


def entries_of(folder: Path, names: Iterable[str]) -> list[FileEntry]:
    """Return size and digest of files; each is read once, whole."""
    sizes = {name: (folder / name).stat().st_size for name in sorted(names)}
    return [FileEntry(name, size, digest_file(folder / name, size)) for name, size in sizes.items()]


def _words(noun: object, kind: type[_T]) -> _T:
    return msgspec.convert(noun, kind, from_attributes=True, strict=True)


def _graph_words(graph: Graph) -> GraphWords:
    return GraphWords(
        graph.path.name,
        None if graph.weights is None else graph.weights.name,
        graph.opset,
        dict(graph.operators),
        graph.n_parameters,
        dict(graph.stored),
        graph.warnings,
    )


def _answered(
    shelf: _Shelf, case: Case, answer: Answer, shapes: Mapping[str, Sequence[int]] | None = None
) -> AnsweredWords:
    stored = {name: shelf.put(array) for name, array in case.stored.items()}
    return AnsweredWords(
        CaseWords(case.name, case.kind, dict(case.sizes), dict(case.fills), stored),
        {name: shelf.put(array) for name, array in answer.outputs.items()},
        dict(answer.floors),
        {name: tuple(shape) for name, shape in answer.shapes.items()},
        {name: tuple(shape) for name, shape in (shapes or {}).items()},
    )


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────
def read_record(folder: Path, kind: type[_T]) -> _T:
    """Read ``record`` of a folder.

    Raises:
        BundleError: It is not there, is damaged, or was written by another version.
    """
    content = read_capped(folder / RECORD, _MAX_BYTES)
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise BundleError("the record of what was done is damaged", where=str(folder))
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except msgspec.DecodeError as err:
        raise BundleError(f"the record of what was done is not understood: {err}", where=str(folder)) from err


def check_entries(folder: Path, entries: Iterable[FileEntry]) -> None:
    """Read files again, whole, and hold them against their size and digest.

    Raises:
        BundleError: One is missing, or is not what was written.
    """
    for entry in entries:
        path = folder / entry.path
        with disk_errors("read", path):
            size_bytes = path.stat().st_size
        if size_bytes != entry.size_bytes:
            what = f"'{entry.path}' has {size_bytes} bytes, {entry.size_bytes} were written"
            raise BundleError(what, where=str(folder))
        if digest_file(path, size_bytes) != entry.sha256:
            raise BundleError(f"'{entry.path}' is not what was written", where=str(folder))


def restore_part(
    record: PartRecord,
    part: Part,
    asked: tuple[PartSpec, CasePlan],
    places: tuple[Path, Path],
    blank: Recorder,
) -> ProvenPart:
    """Return the part as the build that wrote its record had it.

    Args:
        record: Of the part.
        part: Made anew.
        asked: What was compared, and the cases, planned anew.
        places: The folder of the record, and that of the graph.
        blank: A recorder that has answered nothing; it is filled.

    Raises:
        BundleError: A file is not what was written.
    """
    folder, place = places
    check_entries(folder, [record.answers])
    check_entries(place, record.files)
    spec, plan = asked
    arrays = dict(StoredArrays(folder / ANSWERS))
    verdict = Verdict(spec, plan, tuple(record.legs), tuple(map(_finding, record.findings)), record.origin)
    blank.kept += [(_case(one, arrays), _answer(one, arrays)) for one in record.kept]
    blank.recorded += [
        Recorded(_case(one, arrays), _answer(one, arrays), one.shapes) for one in record.recorded
    ]
    blank.omitted += record.omitted
    graph = _graph(record.graph, place)
    return ProvenPart(part, graph, verdict, blank, tuple(record.steps), attention=tuple(record.attention))


def _fields(words: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(words)


def _finding(words: FindingWords) -> Finding:
    return Finding(**_fields(words))


def _graph(words: GraphWords, place: Path) -> Graph:
    weights = None if words.weights is None else place / words.weights
    return Graph(**(_fields(words) | {"path": place / words.path, "weights": weights}))


def _case(words: AnsweredWords, arrays: Mapping[str, np.ndarray]) -> Case:
    stored = {name: arrays[key] for name, key in words.case.stored.items()}
    return Case(**(_fields(words.case) | {"stored": stored}))


def _answer(words: AnsweredWords, arrays: Mapping[str, np.ndarray]) -> Answer:
    outputs = {name: arrays[key] for name, key in words.outputs.items()}
    return Answer(outputs, words.floors, words.answer_shapes)
