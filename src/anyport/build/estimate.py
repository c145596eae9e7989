"""What a build will need, said before it begins: what is read, disk, memory and time, by part and in all.

Sizes come from configurations and headers, the work from `anyport.build.workload`, the speed of the machine
from matrix products that are measured for half a second. The constants are fitted to builds that were
measured (``bench/plan.py`` prints both); docs/plan.md explains the model. What is otherwise where weights are
never loaded: `anyport.build.streamed_estimate`.
"""

from __future__ import annotations

import math
import shutil
import stat
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from glob import escape
from typing import TYPE_CHECKING, Final, get_args

import msgspec
import torch

from anyport.build.costs import BuildCost, PartCost, Speed, TaskCost
from anyport.build.fixing import fix_axes
from anyport.build.parts import PROOF_BYTES
from anyport.build.plan import STREAMED_CASES
from anyport.build.proof import recorder_of
from anyport.build.room import free_memory_bytes
from anyport.build.streamed_estimate import read_s, streamed_cost, streamed_part, task_bytes
from anyport.build.streams import check_streaming
from anyport.build.task_proving import why_unproven
from anyport.build.task_runs import task_runs
from anyport.build.workload import Workload, counted_runs, workload_of
from anyport.compress.methods import Fp16Storage, candidates
from anyport.errors import UsageError
from anyport.graph.streamed import StreamedWeights
from anyport.recipe.adapters import adapter_from
from anyport.source import WeightFiles, checkpoint_of, outline_model, planned_files
from anyport.source.streaming import named_weights
from anyport.verify.whole_task import WHOLE_TASK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anyport.build.plan import BuildPlan, BuildSettings
    from anyport.build.streamed_estimate import StreamedPart
    from anyport.build.task_runs import Sizes
    from anyport.build.workload import Run
    from anyport.recipe import Model, Part

# seconds of one thread of an AMD EPYC 9V74
_PART_S: Final = 1.3  # for each part
_EXPORT_S: Final = 0.018  # for each operator of a part
_CALL_S: Final = 1.9e-4  # for each operator of each case: what Python and the runtime do around it
_COMPARE_S: Final = 2.2e-8  # for each byte of the outputs of each case
_LIFT_S: Final = (
    3.2e-9  # for each byte of weights in each case: they become float64, and are read three times
)
_SLOWER: Final = (
    1.3  # a network's products are this much slower than a square product that stays in the cache
)
# bytes
_GRAPH_BYTES: Final = 280  # of a graph and its module map, for each operator
_TENSOR_BYTES: Final = 125  # of a header, for each tensor
_CASE_BYTES: Final = (250, 110, 250)  # of the proof's table: of a case, of each input, of each output
# of the outputs of a case: PyTorch's in float32 and float64, rounded, the runtime's, and what compares them
_WIDENED: Final = 4.6
_LARGEST: Final = 6.0  # of the largest result inside: in float64 with its operand, and what the runtime keeps
_EXPORTED: Final = 2.0  # of the weights of the part, while it is translated and opened
_OPENED: Final = 1.1  # of the weights of all parts, which are open together for the proof of the whole task
_ANSWERED: Final = 3.0  # of the largest result inside, there
_HALVES: Final = 0.75  # a checkpoint with fewer bytes than this for each of float32 has 16 bits
_PRODUCT_SIZE: Final = 512
_MEASURED_S: Final = 0.25
_NO_SPEED: Final = Speed(math.inf, math.inf)  # no time is asked for


@dataclass(frozen=True, slots=True)
class Outlined:
    """A model of which nothing is loaded, and what was counted of it so far.

    Attributes:
        model: On the meta device.
        files: Of its weights; ``None`` for a function.
        speed: Of this machine.
        loads: Most cases, and bytes of one -> what is run of each part.
        runs: Part and sizes -> one run of it.
    """

    model: Model
    files: WeightFiles | None
    speed: Speed
    loads: dict[tuple[int, int], Mapping[str, Workload]] = field(default_factory=dict)
    runs: dict[tuple[str, Sizes], Run] = field(default_factory=dict)

    @property
    def is_rough(self) -> bool:
        """Whether only the largest runs are counted."""
        return self.speed is _NO_SPEED

    def loads_of(self, settings: BuildSettings) -> Mapping[str, Workload]:
        """Return what a build runs of each part."""
        key = settings.max_cases, settings.max_case_bytes
        if key not in self.loads:
            self.loads[key] = {
                part.name: workload_of(part, settings, largest_only=self.is_rough)
                for part in self.model.parts
            }
        return self.loads[key]

    def runs_of(self, counts: Mapping[tuple[str, Sizes], int]) -> list[tuple[Run, int]]:
        """Return what a task runs, and how often; of each part only the largest run if it is rough."""
        for part in self.model.parts:
            asked = [sizes for name, sizes in counts if name == part.name]
            if self.is_rough and asked:
                asked = [max(asked, key=lambda sizes: math.prod(size for _, size in sizes))]
            new = [dict(sizes) for sizes in asked if (part.name, sizes) not in self.runs]
            found = counted_runs(part, new)
            self.runs.update({(part.name, sizes): run for sizes, run in found.items()})
        return [(self.runs[key], n) for key, n in counts.items() if key in self.runs]


@dataclass(frozen=True, slots=True)
class Known:
    """What all parts have in common.

    Attributes:
        plan: Of the build.
        outlined: The model.
        loads: Part -> what is run of it.
        streamed: Part -> what its checkpoint has, of those whose weights are not loaded.
        stored_share: Bytes that the bundle stores for each byte of other weights in float32.
    """

    plan: BuildPlan
    outlined: Outlined
    loads: Mapping[str, Workload]
    streamed: Mapping[str, StreamedPart]
    stored_share: float = 1.0

    @property
    def model(self) -> Model:
        """On the meta device."""
        return self.outlined.model

    @property
    def speed(self) -> Speed:
        """Of this machine."""
        return self.outlined.speed


def estimate_build(plan: BuildPlan) -> BuildCost:
    """Say what a plan needs; no weight is read.

    Where a model has parts whose weights could be streamed, and the plan loads them, both ways of streaming
    them are reckoned, too.

    Raises:
        SourceError: The source is not there, or a file of its weights is not.
        UsageError: Its description or a method of compression is not understood.
    """
    for method in plan.description.build.compress:
        candidates(method, {})
    check_streaming(plan)
    model, files = _outline(plan)
    found = Outlined(model, files, measure_speed())
    is_loaded = plan.description.build.weights is None
    return replace(_cost(found, plan), ways=_ways(found, plan) if is_loaded else {})


def estimate_roughly(plan: BuildPlan) -> tuple[BuildCost, Callable[[], Mapping[str, BuildCost]]]:
    """Say what a plan needs of disk and memory, in a part of the time that `estimate_build` takes.

    Returns:
        The cost, whose times say nothing; and what reckons the other ways to treat its weights, if it is
        called.

    Raises:
        SourceError: As for `estimate_build`.
        UsageError: The same.
    """
    found = Outlined(*_outline(plan), _NO_SPEED)
    return _cost(found, plan), partial(_ways, found, plan)


def _outline(plan: BuildPlan) -> tuple[Model, WeightFiles | None]:
    model = outline_model(plan.request).built_for(plan.description.model.task)
    checkpoint = checkpoint_of(plan.request)
    files = None if checkpoint is None else planned_files(checkpoint)
    return fix_axes(model, plan.description.build.fix), files


def _ways(found: Outlined, plan: BuildPlan) -> dict[str, BuildCost]:
    made, costs = plan.description.build, dict[str, BuildCost]()
    if all(part.stored is None for part in found.model.parts):
        return {}
    settings = {name: min(most, getattr(plan.settings, name)) for name, most in STREAMED_CASES.items()}
    for way in sorted({*get_args(StreamedWeights)} - {made.weights}, reverse=True):
        words = msgspec.structs.replace(made, weights=way)
        description = msgspec.structs.replace(plan.description, build=words)
        asked = replace(plan, description=description, settings=replace(plan.settings, **settings))
        try:
            check_streaming(asked)
        except UsageError:  # something is asked for that this way does not do
            continue
        costs[way] = _cost(found, asked)
    return costs


def _cost(found: Outlined, plan: BuildPlan) -> BuildCost:
    """Add up what a plan needs."""
    model, made, table = found.model, plan.description.build, plan.description.model
    loads = found.loads_of(plan.settings)
    streamed = _streamed(model, plan, loads)
    weights = list({id(p): p for part in model.parts for p in part.module.parameters()}.values())
    all_bytes = {id(p): p.nbytes for one in model.whole for p in one.parameters()}
    all_bytes |= {id(weight): weight.nbytes for weight in weights}
    share = _stored_share(plan, found.files, sum(all_bytes.values()))
    known = Known(plan, found, loads, streamed, share)
    for part in model.parts:
        if part.name in streamed and part.stored is not None:
            for _, weight in named_weights(part.stored.home):
                all_bytes.pop(id(weight), None)
    sizes = {method: [_compressed(method, load) for load in loads.values()] for method in made.compress}
    return BuildCost(
        model=table.name or model.name,
        source=model.source,
        task=table.task or model.task,
        files=found.files,
        parts=tuple(part_cost(part, known) for part in model.parts),
        whole=_whole_cost(known),
        variants={method: sum(size for size, _ in tried) for method, tried in sizes.items()},
        work_bytes=max((size * n for tried in sizes.values() for size, n in tried), default=0),
        asset_bytes=sum(map(len, model.assets.values())),
        n_parameters=sum(weight.numel() for weight in weights),
        model_bytes=sum(all_bytes.values()),
        free_bytes=_free_bytes(plan.output),
        free_memory_bytes=free_memory_bytes(),
        speed=found.speed,
        weights=made.weights,
    )


def _streamed(model: Model, plan: BuildPlan, loads: Mapping[str, Workload]) -> dict[str, StreamedPart]:
    """Look up the weights of the parts that a plan does not load."""
    if plan.description.build.weights is None:
        return {}
    adapters = [adapter_from(text, plan.folder) for text in plan.request.adapters]
    return {
        part.name: streamed_part(part, loads[part.name], adapters)
        for part in model.parts
        if part.stored is not None
    }


def _stored_share(plan: BuildPlan, files: WeightFiles | None, held_bytes: int) -> float:
    """Return how many bytes the bundle stores for each that the model holds in float32.

    A checkpoint of 16 bits has half as many bytes, and is stored as it is; what a LoRA changed is not.
    """
    if files is None or plan.description.model.adapters or plan.description.build.storage == "float32":
        return 1.0
    share = files.size_bytes / max(held_bytes, 1)
    return share if share < _HALVES else 1.0


def part_cost(part: Part, known: Known) -> PartCost:
    """Add up what one part needs."""
    settings, made, load = known.plan.settings, known.plan.description.build, known.loads[part.name]
    n_inputs, n_outputs = len(part.signature.inputs), len(part.signature.outputs)
    rows = _CASE_BYTES[0] + _CASE_BYTES[1] * n_inputs + _CASE_BYTES[2] * n_outputs
    recorder = recorder_of(part, settings, PROOF_BYTES // len(known.model.parts))
    # the cases of a recipe or of the user are not made here: two of the size of the first one stand for them
    given = 2 * (load.runs[0].input_bytes + load.runs[0].output_bytes) if part.given is not None else 0
    arrays = _sampled_bytes(load, recorder.max_elements) + given
    cost = PartCost(
        name=part.name,
        n_parameters=sum(weight.numel() for weight in part.module.parameters()),
        n_cases=len(load.cases),
        weight_bytes=round(known.stored_share * load.weight_bytes),
        graph_bytes=_GRAPH_BYTES * load.n_calls + _TENSOR_BYTES * len(load.needed),
        proof_bytes=min(arrays, recorder.budget_bytes) + rows * len(load.cases),
        memory_bytes=_peak_bytes(load),
        time_s=_time_s(load, known.speed),
    )
    if part.name not in known.streamed or made.weights is None:
        return cost
    return streamed_cost(known.streamed[part.name], cost, known.speed, made.weights, made.storage)


def _whole_cost(known: Known) -> TaskCost | None:
    """Add up what the proof of the whole task needs; ``None`` where a build makes none."""
    model, speed, loads = known.model, known.speed, known.loads
    if why_unproven(model, known.plan) is not None:
        return None
    found = task_runs(model, known.plan.description.settings)
    runs, counts = known.outlined.runs_of(found.counts), Counter[str]()
    for (name, _), n in found.counts.items():
        counts[name] += n
    n_flops = sum(n * run.n_flops for run, n in runs)
    n_calls = sum(n * run.n_calls for run, n in runs)
    # once by the original program, once by the graphs, both in float32
    time_s = 2 * (_SLOWER * n_flops / speed.float32 + _CALL_S * n_calls)
    time_s += 2 * read_s(known.streamed.values(), counts)
    loaded = sum(load.weight_bytes for name, load in loads.items() if name not in known.streamed)
    largest = max(run.peak_bytes for run, _ in runs)
    streamed = task_bytes(known.streamed.values())
    memory_bytes = round(_OPENED * loaded + streamed + _ANSWERED * largest)
    return TaskCost(WHOLE_TASK, found.n_requests, counts.total(), found.proof_bytes, memory_bytes, time_s)


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
    """Return what the disk has left, with what a killed build of the same output has begun."""
    folder = next(path for path in output.absolute().parents if path.is_dir())
    begun = (file for place in folder.glob(f".{escape(output.name)}.building-*") for file in place.rglob("*"))
    return shutil.disk_usage(folder).free + sum(_size(file) for file in begun)


def _size(file: Path) -> int:
    try:
        found = file.lstat()
    except OSError:  # of a build that goes on meanwhile
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
