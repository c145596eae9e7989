"""What a build will need, said before it begins: what is read, disk, memory and time, by part and in all.

Sizes come from configurations and headers, the work from `anyport.build.workload`, the speed of the machine
from matrix products that are measured for half a second. The constants are fitted to builds that were
measured (``bench/plan.py`` prints both); docs/plan.md explains the model.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from anyport.build.fixing import fix_axes
from anyport.build.parts import PROOF_BYTES
from anyport.build.proof import recorder_of
from anyport.build.room import free_memory_bytes
from anyport.build.task_proving import why_unproven
from anyport.build.task_runs import task_runs
from anyport.build.workload import Workload, count_run, workload_of
from anyport.compress.methods import Fp16Storage, candidates
from anyport.source import WeightFiles, checkpoint_of, outline_model, planned_files
from anyport.verify.whole_task import WHOLE_TASK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anyport.build.plan import BuildPlan, BuildSettings
    from anyport.recipe import Model, Part

# seconds of one thread of an AMD EPYC 9V74
_START_S: Final = 7.0  # imports, and reading the configuration
_PART_S: Final = 1.3  # for each part
_EXPORT_S: Final = 0.018  # for each operator of a part
_WEIGHT_S: Final = 1e-8  # for each byte of weights: loaded, written, digested
_CALL_S: Final = 1.9e-4  # for each operator of each case: what Python and the runtime do around it
_COMPARE_S: Final = 2.2e-8  # for each byte of the outputs of each case
_LIFT_S: Final = (
    3.2e-9  # for each byte of weights in each case: they become float64, and are read three times
)
_SLOWER: Final = (
    1.3  # a network's products are this much slower than a square product that stays in the cache
)
# bytes
_IMPORT_BYTES: Final = 650_000_000  # torch, transformers, onnx, onnxruntime
_GRAPH_BYTES: Final = 280  # of a graph and its module map, for each operator
_TENSOR_BYTES: Final = 125  # of a header, for each tensor
_CASE_BYTES: Final = (250, 110, 250)  # of the proof's table: of a case, of each input, of each output
# of the outputs of a case: PyTorch's in float32 and float64, rounded, the runtime's, and what compares them
_WIDENED: Final = 4.6
_LARGEST: Final = 6.0  # of the largest result inside: in float64 with its operand, and what the runtime keeps
_HELD: Final = 1.2  # of the weights of the model, for as long as it is there
_EXPORTED: Final = 2.0  # of the weights of the part, while it is translated and opened
_OPENED: Final = 1.1  # of the weights of all parts, which are open together for the proof of the whole task
_ANSWERED: Final = 3.0  # of the largest result inside, there
_HALVES: Final = 0.75  # a checkpoint with fewer bytes than this for each of float32 has 16 bits
_PRODUCT_SIZE: Final = 512
_MEASURED_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Speed:
    """Floating-point operations per second in matrix products, by PyTorch, with its threads."""

    float32: float
    float64: float


@dataclass(frozen=True, slots=True)
class Known:
    """What all parts have in common.

    Attributes:
        settings: Of the build.
        speed: Of this machine.
        stored_share: Bytes that the bundle stores for each byte of weights in float32.
    """

    settings: BuildSettings
    speed: Speed
    stored_share: float = 1.0


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
    """

    name: str
    n_parameters: int
    n_cases: int
    weight_bytes: int
    graph_bytes: int
    proof_bytes: int
    memory_bytes: int
    time_s: float

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
        model_bytes: Of all weights in memory.
        free_bytes: On the disk where the bundle goes.
        free_memory_bytes: Of this machine; ``None`` where the system does not say.
        speed: What the times hold for.
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
        """Of the process at most."""
        return round(_IMPORT_BYTES + _HELD * self.model_bytes) + max(self._peaks.values())

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
        return _START_S + _WEIGHT_S * self.model_bytes + sum(part.time_s for part in self.parts) + whole_s

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

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict; all sizes in bytes, all times in seconds."""
        parts = [
            {name: getattr(part, name) for name in PartCost.__slots__} | {"disk_bytes": part.disk_bytes}
            for part in self.parts
        ]
        names = ("n_parameters", "bundle_bytes", "disk_bytes", "free_bytes", "memory_bytes")
        return {
            "model": self.model,
            "source": self.source,
            "task": self.task,
            "weight_files": _files_json(self.files),
            "parts": parts,
            "whole_task": None if self.whole is None else asdict(self.whole),
            "variants": dict(self.variants),
            **{name: getattr(self, name) for name in (*names, "free_memory_bytes", "time_s")},
            "lacks": list(self.lacks),
            "flops_per_s": {"float32": self.speed.float32, "float64": self.speed.float64},
        }


def estimate_build(plan: BuildPlan) -> BuildCost:
    """Say what a plan needs; no weight is read.

    Raises:
        SourceError: The source is not there, or a file of its weights is not.
        UsageError: Its description or a method of compression is not understood.
    """
    made, table = plan.description.build, plan.description.model
    for method in made.compress:
        candidates(method, {})
    model = fix_axes(outline_model(plan.request).built_for(table.task), made.fix)
    checkpoint = checkpoint_of(plan.request)
    weights = list({id(p): p for part in model.parts for p in part.module.parameters()}.values())
    held = {id(p): p.nbytes for one in model.whole for p in one.parameters()}
    held |= {id(weight): weight.nbytes for weight in weights}
    files = None if checkpoint is None else planned_files(checkpoint)
    known = Known(plan.settings, measure_speed(), _stored_share(plan, files, sum(held.values())))
    loads = {part.name: workload_of(part, plan.settings) for part in model.parts}
    parts = tuple(part_cost(part, model, loads[part.name], known) for part in model.parts)
    sizes = {method: [_compressed(method, load) for load in loads.values()] for method in made.compress}
    return BuildCost(
        model=table.name or model.name,
        source=model.source,
        task=table.task or model.task,
        files=files,
        parts=parts,
        whole=_whole_cost(model, plan, loads, known.speed),
        variants={method: sum(size for size, _ in found) for method, found in sizes.items()},
        work_bytes=max((size * n for found in sizes.values() for size, n in found), default=0),
        asset_bytes=sum(map(len, model.assets.values())),
        n_parameters=sum(weight.numel() for weight in weights),
        model_bytes=sum(held.values()),
        free_bytes=_free_bytes(plan.output),
        free_memory_bytes=free_memory_bytes(),
        speed=known.speed,
    )


def _stored_share(plan: BuildPlan, files: WeightFiles | None, held_bytes: int) -> float:
    """Return how many bytes the bundle stores for each that the model holds in float32.

    A checkpoint of 16 bits has half as many bytes, and is stored as it is; what a LoRA changed is not.
    """
    if files is None or plan.description.model.adapters or plan.description.build.storage == "float32":
        return 1.0
    share = files.size_bytes / max(held_bytes, 1)
    return share if share < _HALVES else 1.0


def part_cost(part: Part, model: Model, load: Workload, known: Known) -> PartCost:
    """Add up what one part needs."""
    settings = known.settings
    n_inputs, n_outputs = len(part.signature.inputs), len(part.signature.outputs)
    rows = _CASE_BYTES[0] + _CASE_BYTES[1] * n_inputs + _CASE_BYTES[2] * n_outputs
    recorder = recorder_of(part, settings, PROOF_BYTES // len(model.parts))
    # the cases of a recipe or of the user are not made here: two of the size of the first one stand for them
    given = 2 * (load.runs[0].input_bytes + load.runs[0].output_bytes) if part.given is not None else 0
    arrays = _sampled_bytes(load, recorder.max_elements) + given
    return PartCost(
        name=part.name,
        n_parameters=sum(weight.numel() for weight in part.module.parameters()),
        n_cases=len(load.cases),
        weight_bytes=round(known.stored_share * load.weight_bytes),
        graph_bytes=_GRAPH_BYTES * load.n_calls + _TENSOR_BYTES * len(load.weights),
        proof_bytes=min(arrays, recorder.budget_bytes) + rows * len(load.cases),
        memory_bytes=_peak_bytes(load),
        time_s=_time_s(load, known.speed),
    )


def _whole_cost(
    model: Model, plan: BuildPlan, loads: Mapping[str, Workload], speed: Speed
) -> TaskCost | None:
    """Add up what the proof of the whole task needs; ``None`` where a build makes none."""
    if why_unproven(model, plan) is not None:
        return None
    found, parts = task_runs(model, plan.description.settings), {part.name: part for part in model.parts}
    runs = [(count_run(parts[name], dict(sizes)), n) for (name, sizes), n in found.counts.items()]
    weight_bytes = sum(load.weight_bytes for load in loads.values())
    n_flops = sum(n * run.n_flops for run, n in runs)
    n_calls = sum(n * run.n_calls for run, n in runs)
    largest = max(run.peak_bytes for run, _ in runs)
    # once by the original program, once by the graphs, both in float32
    time_s = 2 * (_SLOWER * n_flops / speed.float32 + _CALL_S * n_calls)
    memory_bytes = round(_OPENED * weight_bytes + _ANSWERED * largest)
    n_runs = sum(n for _, n in runs)
    return TaskCost(WHOLE_TASK, found.n_requests, n_runs, found.proof_bytes, memory_bytes, time_s)


def _files_json(files: WeightFiles | None) -> dict[str, Any] | None:
    if files is None:
        return None
    absent = {name: getattr(files, name) for name in ("absent_bytes", "size_bytes")}
    lists = {"absent": list(files.absent), "unsized": list(files.unsized)}
    return {"sizes": dict(files.sizes), "is_here": files.is_here and not files.absent} | absent | lists


def _sampled_bytes(load: Workload, limit: int | None) -> int:
    """Return what a proof keeps: of large outputs a sample."""
    outputs = [output for run in load.runs for output in run.outputs if output[0]]
    return sum(size if limit is None or n <= limit else size // n * limit for n, size in outputs)


def _peak_bytes(load: Workload) -> int:
    cases = (
        _WIDENED * run.output_bytes + _LARGEST * run.peak_bytes + 2 * run.input_bytes for run in load.runs
    )
    return round(_EXPORTED * load.weight_bytes + max(cases))


def _time_s(load: Workload, speed: Speed) -> float:
    n_flops = sum(run.n_flops for run in load.runs)
    # PyTorch and the runtime in float32, PyTorch once more in float64
    computed = _SLOWER * n_flops * (2 / speed.float32 + 1 / speed.float64)
    around = _CALL_S * sum(run.n_calls for run in load.runs)
    compared = _COMPARE_S * sum(run.output_bytes for run in load.runs)
    lifted = _LIFT_S * load.weight_bytes * len(load.cases)
    return _PART_S + _EXPORT_S * load.n_calls + computed + around + compared + lifted


def _compressed(method: str, load: Workload) -> tuple[int, int]:
    """Return the size of a part's graph in another form, and how many forms are tried."""
    kinds = {"Conv": sum(n_axes > 2 for _, n_axes in load.weights), "MatMul": len(load.weights)}  # noqa: PLR2004  (a matrix)
    methods = candidates(method, kinds)
    if isinstance(methods[0], Fp16Storage):
        return load.weight_bytes // 2, len(methods)
    # a matrix becomes INT8, a vector stays
    return sum(size // 4 if n_axes > 1 else size for size, n_axes in load.weights), len(methods)


def measure_speed() -> Speed:
    """Multiply matrices for half a second of CPU time, which other programs do not shorten."""
    return Speed(_flops_per_s(torch.float32), _flops_per_s(torch.float64))


def _flops_per_s(dtype: torch.dtype) -> float:
    factor = torch.ones(_PRODUCT_SIZE, _PRODUCT_SIZE, dtype=dtype)
    factor @ factor  # the first one starts threads
    n_products, n_threads, start_s = 0, torch.get_num_threads(), time.process_time()
    while (spent_s := (time.process_time() - start_s) / n_threads) < _MEASURED_S:
        factor @ factor
        n_products += 1
    return 2 * _PRODUCT_SIZE**3 * n_products / spent_s


def _free_bytes(output: Path) -> int:
    folder = next(path for path in output.absolute().parents if path.is_dir())
    return shutil.disk_usage(folder).free
