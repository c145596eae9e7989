"""What a part needs whose weights are never loaded: exported from its shapes, proven while they stream.

Memory is what the process has of its own; the pages of files that it reads belong to the system, which takes
them back when it needs them. The constants are fitted to what ``bench/streamed.py`` measures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from torch import nn

from anyport.build.costs import StoredAs
from anyport.errors import SourceError
from anyport.graph.narrow import LEAST_BYTES
from anyport.recipe.adapters import read_changes
from anyport.source import open_checkpoint, renamed
from anyport.source.streaming import named_weights
from anyport.source.weightfiles import chosen_index, weight_map

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from anyport.build.costs import PartCost, Speed
    from anyport.build.workload import Workload
    from anyport.graph.storing import Storage
    from anyport.graph.streamed import StreamedWeights
    from anyport.recipe import Part, StoredWeights
    from anyport.recipe.adapters import Adapter

_MIB: Final = 1 << 20
# bytes
_START_BYTES: Final = 387 * _MIB  # of a process: imports, and what torch's first export leaves
_CALL_BYTES: Final = 47_300  # for each operator of a part, of its graph while it is translated
_WRITER_BYTES: Final = 8 * _MIB  # while weights are written
_NODE_BYTES: Final = 52  # of an .onnx file, for each operator that PyTorch runs
_PLACE_BYTES: Final = 300  # for each weight: its name and place
_CAST_BYTES: Final = 195  # for each that is stored in 16 bits: its Cast
_MODULE_BYTES: Final = 200  # of a module map, for each operator
_HEADER_BYTES: Final = 125  # of a safetensors header, for each weight
_SESSION_BYTES: Final = 87_000  # of an open graph that has run, for each operator
_ANSWERED: Final = 6.0  # of the largest result inside, while a case is compared: as for a loaded part
_WIDENED: Final = 4.6  # of the outputs of a case: the same
# seconds of one thread of an AMD EPYC 9V74
_EXPORT_S: Final = 0.0105  # for each operator of a part
_WRITE_S: Final = 3e-9  # for each byte that is copied
_DIGEST_S: Final = 2.2e-9  # for each byte of files that are referred to, or of a copy
_READ_S: Final = 5e-10  # for each byte of weights in float32, in each run: read and widened
_N_FLOAT64: Final = 3  # whole answers in float64, and sampled blocks, of a part with blocks
_SLOWER: Final = 1.3
_CALL_S: Final = 1.9e-4
_PIECE_S: Final = 0.05  # for each piece of a graph that is opened: there is one for each block of each case

_WORDS: Final[Mapping[str, int]] = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}
_HALF: Final = 2
_SINGLE: Final = 4
_DOUBLE: Final = 8
_HALVES: Final = 3.0  # a checkpoint with fewer bytes than this for each number has 16 bits


@dataclass(frozen=True, slots=True)
class WeightSize:
    """One weight that a graph keeps.

    Attributes:
        n_elements: Its numbers.
        item_bytes: Of each, as the checkpoint has it; 0 for what the module computes itself.
        is_turned: The graph keeps it transposed.
        is_merged: A LoRA is merged into it.
    """

    n_elements: int
    item_bytes: int
    is_turned: bool
    is_merged: bool = False

    @property
    def is_half(self) -> bool:
        """Whether it can stay in 16 bits."""
        is_small = self.n_elements * _SINGLE < LEAST_BYTES
        return self.item_bytes == _HALF and not self.is_merged and not is_small


@dataclass(frozen=True, slots=True)
class StreamedPart:
    """A part and its weights, of which none was read.

    Attributes:
        part: Its module is on the meta device.
        load: What is run of it.
        weights: That its graph keeps.
        stored: What its checkpoint has.
    """

    part: Part
    load: Workload
    weights: tuple[WeightSize, ...]
    stored: StoredAs

    @property
    def float32_bytes(self) -> int:
        """Of all weights, as they are computed with."""
        return _SINGLE * sum(weight.n_elements for weight in self.weights)

    @property
    def read_bytes(self) -> int:
        """The most that one weight takes while PyTorch reads it in float64: as it is stored, and lifted."""
        return max((one.n_elements * (one.item_bytes + _DOUBLE) for one in self.weights), default=0)

    @property
    def single_bytes(self) -> int:
        """The same in float32."""
        return max((one.n_elements * (one.item_bytes + _SINGLE) for one in self.weights), default=0)

    @property
    def cast_bytes(self) -> int:
        """The most that one weight of 16 bits takes while the open graph computes with it."""
        return max((one.n_elements * _SINGLE for one in self.weights if one.is_half), default=0)

    @property
    def session_bytes(self) -> int:
        """Of the open graph otherwise, once it has run."""
        return _SESSION_BYTES * self.load.n_calls


@dataclass(frozen=True, slots=True)
class ExportCost:
    """What the export of one part needs.

    Attributes:
        memory_bytes: Of its own that a process needs which does nothing else.
        graph_bytes: Of the .onnx file.
        weight_bytes: Of the file of weights beside it.
    """

    memory_bytes: int
    graph_bytes: int
    weight_bytes: int

    @property
    def written_bytes(self) -> int:
        """Of both files."""
        return self.graph_bytes + self.weight_bytes


def streamed_part(part: Part, load: Workload, adapters: Sequence[Adapter] = ()) -> StreamedPart:
    """Look up how the weights of a part are stored: in the headers of its files, or in their index.

    Args:
        part: With ``stored``.
        load: What is run of it.
        adapters: That would be merged. One that fits no layer of this part is another's.

    Raises:
        SourceError: The files are there, and no checkpoint.
    """
    if part.stored is None:
        raise SourceError(f"the weights of part '{part.name}' are loaded")
    own = {id(tensor) for _, tensor in named_weights(part.module)}
    names = {id(tensor): name for name, tensor in named_weights(part.stored.home) if id(tensor) in own}
    dtypes, files = _places(part.stored, names.values())
    merged = {name for one in adapters for name in _changed(part.stored.home, one)}

    def size(tensor: Tensor) -> WeightSize:
        name = names.get(id(tensor), "")
        item_bytes = _item_bytes(dtypes[name]) if name in dtypes else 0
        return WeightSize(tensor.numel(), item_bytes, id(tensor) in load.turned, name in merged)

    counts: dict[str, int] = {}
    for tensor in {id(one): one for _, one in named_weights(part.stored.home)}.values():
        if (name := names.get(id(tensor))) in dtypes:
            word = dtypes[str(name)]
            counts[word] = counts.get(word, 0) + tensor.numel() * _item_bytes(word)
    words = tuple(sorted(counts, key=lambda word: -counts[word]))
    stored = StoredAs(sum(counts.values()), len(files), words)
    return StreamedPart(part, load, tuple(map(size, load.needed)), stored)


def _item_bytes(dtype: str) -> int:
    return _WORDS.get(dtype, _HALF)


def _changed(home: nn.Module, adapter: Adapter) -> list[str]:
    try:
        return [f"{change.layer}.weight" for change in read_changes(home, adapter)[0]]
    except SourceError:  # it is of another part; a wrong one is refused by the build
        return []


def _places(stored: StoredWeights, names: Collection[str]) -> tuple[dict[str, str], set[str]]:
    """Return the type of each weight by its name in the module, and the files that they are in."""
    name_of = stored.name_of or str
    if any(stored.folder.glob("*.safetensors")):
        found = renamed(open_checkpoint(stored.folder), name_of).tensors
        known = {name: found[name] for name in names if name in found}
        return {name: one.dtype for name, one in known.items()}, {one.file.name for one in known.values()}
    index = chosen_index(stored.folder)
    if index is None:
        return dict.fromkeys(names, "16-bit"), {"one"}
    files = {name_of(name): file for name, file in weight_map(index).items()}
    word = _indexed_word(index, stored.home, files)
    return {name: word for name in names if name in files}, {files[name] for name in names if name in files}


def _indexed_word(index: Path, home: nn.Module, files: Mapping[str, str]) -> str:
    """Return how the weights are stored, from the size that an index gives for all of them."""
    tensors = {id(tensor): tensor for name, tensor in named_weights(home) if name in files}
    n_elements = sum(tensor.numel() for tensor in tensors.values())
    metadata = json.loads(index.read_text(encoding="utf-8")).get("metadata") or {}
    return "16-bit" if metadata.get("total_size", 0) < _HALVES * n_elements else "F32"


def export_cost(one: StreamedPart, way: StreamedWeights, storage: Storage = "as-is") -> ExportCost:
    """Say what the export of one part needs.

    Args:
        one: The part.
        way: How its weights get to whoever opens the graph.
        storage: Of a copy.
    """
    keeps_halves = way == "reference" or storage == "as-is"
    graph_bytes = _NODE_BYTES * one.load.n_calls + _PLACE_BYTES * len(one.weights)
    graph_bytes += _CAST_BYTES * sum(weight.is_half and keeps_halves for weight in one.weights)
    start_bytes = _START_BYTES + _CALL_BYTES * one.load.n_calls
    if way == "reference":  # what the module computed itself is in the graph
        inside = _SINGLE * sum(weight.n_elements for weight in one.weights if not weight.item_bytes)
        return ExportCost(start_bytes, graph_bytes + inside, 0)
    items = [_HALF if weight.is_half and keeps_halves else _SINGLE for weight in one.weights]
    weight_bytes = sum(n * weight.n_elements for n, weight in zip(items, one.weights, strict=True))
    writing = max((_written_bytes(weight, keeps_halves=keeps_halves) for weight in one.weights), default=0)
    memory_bytes = start_bytes + _WRITER_BYTES + writing
    return ExportCost(memory_bytes, graph_bytes, weight_bytes + _HEADER_BYTES * len(one.weights))


def _written_bytes(weight: WeightSize, *, keeps_halves: bool) -> int:
    """Return what is held of a weight while it is copied: it is turned, and widened, or only mapped."""
    if weight.is_merged:  # as it is read, in float32, its change, and turned
        return weight.n_elements * (weight.item_bytes + 3 * _SINGLE)
    turned = weight.item_bytes if weight.is_turned else 0
    is_widened = weight.item_bytes == _HALF and not (weight.is_half and keeps_halves)
    return weight.n_elements * (turned + (_SINGLE if is_widened else 0))


def streamed_cost(
    one: StreamedPart, loaded: PartCost, speed: Speed, way: StreamedWeights, storage: Storage
) -> PartCost:
    """Say what a part needs in all, from what it would need if it were loaded.

    Args:
        one: The part.
        loaded: For the cases, and the proof.
        speed: Of the machine.
        way: As for `export_cost`.
        storage: Of a copy.
    """
    made = export_cost(one, way, storage)
    activations = max(
        _WIDENED * run.output_bytes + _ANSWERED * run.peak_bytes + 2 * run.input_bytes
        for run in one.load.runs
    )
    # the graph is still held while it is proven; PyTorch and the runtime answer one after the other
    growth = _CALL_BYTES * one.load.n_calls
    proof = growth + max(one.read_bytes, one.session_bytes + one.cast_bytes) + activations
    return replace(
        loaded,
        weight_bytes=made.weight_bytes,
        graph_bytes=made.graph_bytes + _MODULE_BYTES * one.load.n_calls,
        memory_bytes=round(max(made.memory_bytes - _START_BYTES, proof)),
        time_s=_export_s(one, made, way) + _proof_s(one, speed),
        export_memory_bytes=made.memory_bytes,
        stored=one.stored,
    )


def _export_s(one: StreamedPart, made: ExportCost, way: StreamedWeights) -> float:
    written = _WRITE_S * made.weight_bytes
    digested = _DIGEST_S * (one.stored.n_bytes if way == "reference" else made.weight_bytes)
    return _EXPORT_S * one.load.n_calls + written + digested


def _proof_s(one: StreamedPart, speed: Speed) -> float:
    """Return the time of a proof: by blocks, and as a whole; each run reads all weights again."""
    runs, n_cases = one.load.runs, len(one.load.runs)
    listed = dict(one.part.module.named_modules()).get(one.part.blocks or "")
    n_blocks = len(listed) if isinstance(listed, nn.ModuleList) else 0
    n_single = 3 * n_cases if n_blocks else 2 * n_cases  # PyTorch, the graph in pieces, the graph
    n_double = min(n_cases, _N_FLOAT64 * (1 + n_cases / n_blocks)) if n_blocks else n_cases
    n_flops = sum(run.n_flops for run in runs) / max(n_cases, 1)
    computed = _SLOWER * n_flops * (n_single / speed.float32 + n_double / speed.float64)
    read = _READ_S * one.float32_bytes * (n_single + 2 * n_double)
    around = _CALL_S * one.load.n_calls * (n_single + n_double) + _PIECE_S * n_cases * n_blocks
    return computed + read + around


def task_bytes(parts: Collection[StreamedPart]) -> int:
    """Return what a whole task holds of streamed weights: PyTorch's largest one, then all open graphs."""
    asked = max((one.single_bytes for one in parts), default=0)
    cast = max((one.cast_bytes for one in parts), default=0)
    return max(asked, cast + sum(one.session_bytes for one in parts))


def read_s(parts: Iterable[StreamedPart], counts: Mapping[str, int]) -> float:
    """Return the time in which a task reads the weights of its parts, so many runs of each."""
    return sum(_READ_S * one.float32_bytes * counts.get(one.part.name, 0) for one in parts)
