"""What a build needs, as figures: of its parts, of the proof of the whole task, and in all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from anyport.build.plan import UNPROVEN_TASK
from anyport.bundle.disk import size_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from anyport.source import WeightFiles

START_S: Final = 7.0  # imports, and reading the configuration
WEIGHT_S: Final = 1e-8  # for each byte of weights: loaded, written, digested
IMPORT_BYTES: Final = 650_000_000  # torch, transformers, onnx, onnxruntime
OWN_BYTES: Final = 420_000_000  # of the same and diffusers, without pages of files
_HELD: Final = 1.2  # of the weights of the model, for as long as it is there


@dataclass(frozen=True, slots=True)
class Speed:
    """Floating-point operations per second in matrix products, by PyTorch, with its threads."""

    float32: float
    float64: float


@dataclass(frozen=True, slots=True)
class StoredAs:
    """What a checkpoint has of one part.

    Attributes:
        n_bytes: Of the part's weights.
        n_files: That they are in.
        dtypes: Their types, such as ``BF16``, most bytes first; ``16-bit`` where only an index is here.
    """

    n_bytes: int
    n_files: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PartCost:
    """What one part needs.

    Attributes:
        name: Of the part.
        n_parameters: Of its module.
        n_cases: That are planned.
        weight_bytes: In the graph.
        graph_bytes: Of the graph without them.
        proof_bytes: Of what PyTorch answers.
        memory_bytes: While it is exported and compared, beside the loaded model.
        time_s: For the same.
        export_memory_bytes: Of its own (no pages of files) that a process needs that exports it and does
            nothing else; ``None`` for a part that is loaded.
        stored: What its checkpoint has; ``None`` for a part that is loaded.
    """

    name: str
    n_parameters: int
    n_cases: int
    weight_bytes: int
    graph_bytes: int
    proof_bytes: int
    memory_bytes: int
    time_s: float
    export_memory_bytes: int | None = None
    stored: StoredAs | None = None

    @property
    def disk_bytes(self) -> int:
        """Of all its files."""
        return self.weight_bytes + self.graph_bytes + self.proof_bytes


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What the proof of the whole task needs: the original program answers, and the graphs.

    Attributes:
        name: What it is called in the place of a part.
        n_requests: That both answer.
        n_runs: Of parts, in each of the two.
        proof_bytes: Of requests and answers.
        memory_bytes: With all graphs open, beside the loaded model.
        time_s: For both.
    """

    name: str
    n_requests: int
    n_runs: int
    proof_bytes: int
    memory_bytes: int
    time_s: float


@dataclass(frozen=True, slots=True)
class BuildCost:
    """What a build needs.

    Attributes:
        model: Its name.
        source: What it is made of.
        task: What runs it.
        files: The files of weights; ``None`` for a function, which loads what it likes.
        parts: One cost each.
        whole: Of the proof of the whole task; ``None`` where there is none.
        variants: Method of compression -> bytes that the bundle grows by.
        work_bytes: What compression writes beside the bundle while it chooses.
        asset_bytes: Of the files that the task reads.
        n_parameters: Of the model; parts may share some.
        model_bytes: Of all weights in memory: of those that are loaded.
        free_bytes: On the disk where the bundle goes.
        free_memory_bytes: Of this machine; ``None`` where the system does not say.
        speed: What the times hold for.
        weights: How the large parts' weights get into the bundle: ``copy``, ``reference``; ``None``: loaded.
        ways: The same for each way in which they would not be loaded, if the model has such ways and the
            build takes none.
    """

    model: str
    source: str
    task: str | None
    files: WeightFiles | None
    parts: tuple[PartCost, ...]
    whole: TaskCost | None
    variants: Mapping[str, int]
    work_bytes: int
    asset_bytes: int
    n_parameters: int
    model_bytes: int
    free_bytes: int
    free_memory_bytes: int | None
    speed: Speed
    weights: str | None = None
    ways: Mapping[str, BuildCost] = field(default_factory=dict)

    @property
    def bundle_bytes(self) -> int:
        """Of the bundle, with all its variants."""
        proof = self.whole.proof_bytes if self.whole else 0
        return sum(p.disk_bytes for p in self.parts) + sum(self.variants.values()) + self.asset_bytes + proof

    @property
    def disk_bytes(self) -> int:
        """Beside the output at most: the hidden folder in which the bundle is made becomes the bundle."""
        return self.bundle_bytes + self.work_bytes

    @property
    def memory_bytes(self) -> int:
        """Of the process at most; where weights are streamed, without the pages of their files."""
        start_bytes = IMPORT_BYTES if self.weights is None else OWN_BYTES
        return round(start_bytes + _HELD * self.model_bytes) + max(self._peaks.values())

    @property
    def largest_part(self) -> str:
        """The part during which that is, or the whole task."""
        return max(self._peaks, key=self._peaks.__getitem__)

    @property
    def _peaks(self) -> dict[str, int]:
        whole = {self.whole.name: self.whole.memory_bytes} if self.whole else {}
        return {part.name: part.memory_bytes for part in self.parts} | whole

    @property
    def time_s(self) -> float:
        """On this machine with nothing else to do; without compression, which depends on the samples."""
        whole_s = self.whole.time_s if self.whole else 0.0
        return START_S + WEIGHT_S * self.model_bytes + sum(part.time_s for part in self.parts) + whole_s

    @property
    def lacks(self) -> tuple[str, ...]:
        """What this machine has too little of: ``disk``, ``memory``."""
        is_disk, free = self.disk_bytes > self.free_bytes, self.free_memory_bytes
        is_memory = free is not None and self.memory_bytes > free
        return ("disk",) * is_disk + ("memory",) * is_memory

    @property
    def is_enough(self) -> bool:
        """Whether the build fits into this machine."""
        return not self.lacks

    def ways_out(self, lacks: Collection[str]) -> list[str]:
        """Name the options with which a build would fit, or need less.

        Args:
            lacks: Of `lacks` those that matter.
        """
        texts = [
            f"--weights {way}: memory {size_text(cost.memory_bytes)}, disk {size_text(cost.disk_bytes)}"
            for way, cost in self.ways.items()
            if not {*lacks} & {*cost.lacks}
        ]
        if "memory" in lacks and self.whole is not None and self.largest_part == self.whole.name:
            texts.append(f"without the proof of the whole task it is less: --allow {UNPROVEN_TASK}")
        return texts

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict; all sizes in bytes, all times in seconds."""
        names = ("n_parameters", "bundle_bytes", "disk_bytes", "free_bytes", "memory_bytes")
        return {
            "model": self.model,
            "source": self.source,
            "task": self.task,
            "weights": self.weights,
            "weight_files": _files_json(self.files),
            "parts": [_part_json(part) for part in self.parts],
            "whole_task": None if self.whole is None else asdict(self.whole),
            "variants": dict(self.variants),
            **{name: getattr(self, name) for name in (*names, "free_memory_bytes", "time_s")},
            "lacks": list(self.lacks),
            "flops_per_s": {"float32": self.speed.float32, "float64": self.speed.float64},
            "ways": {way: cost.way_json() for way, cost in self.ways.items()},
        }

    def way_json(self) -> dict[str, Any]:
        """Return what differs where weights are streamed."""
        names = ("bundle_bytes", "disk_bytes", "memory_bytes", "time_s")
        parts = {"parts": [_part_json(part) for part in self.parts], "lacks": list(self.lacks)}
        return parts | {name: getattr(self, name) for name in names}


def _part_json(part: PartCost) -> dict[str, Any]:
    return asdict(part) | {"disk_bytes": part.disk_bytes}


def _files_json(files: WeightFiles | None) -> dict[str, Any] | None:
    if files is None:
        return None
    absent = {name: getattr(files, name) for name in ("absent_bytes", "size_bytes")}
    lists = {"absent": list(files.absent), "unsized": list(files.unsized)}
    return {"sizes": dict(files.sizes), "is_here": files.is_here and not files.absent} | absent | lists
