"""One case of a proof by blocks: the graph is held against PyTorch wherever a block begins or ends."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from anyport.errors import ExportError, MismatchError, UsageError
from anyport.graph.cutting import Cutter
from anyport.source.adapter import Adapter, tensors_from
from anyport.source.float64 import NoTwinError
from anyport.source.streaming import lifted, run_streamed
from anyport.verify import Answer, Floor, Gates, measure_floor
from anyport.verify.judging import Measured, Place, judge, measure
from anyport.verify.tolerance import FLOAT32_EPSILON

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from anyport.cases import Case
    from anyport.graph.modulemap import ModuleMap
    from anyport.recipe import Part
    from anyport.source.merging import LazyWeight
    from anyport.verify import Finding

BEFORE: Final = "before the blocks"
AFTER: Final = "after the blocks"
_BLIND_SPACINGS: Final = 8.0  # as for a reference without float64 and without a float input


@dataclass(frozen=True, slots=True)
class BlockSubject:
    """What is held against what.

    Attributes:
        part: The reference, with ``blocks``; its own weights are not used, and may be on meta or fake.
        weights: Name in the part's module -> how it is read.
        graph: The .onnx file.
        modules: The module map of its export.
        folder: What the places of its external weights are relative to; ``None`` is the folder it lies in.
        unused: Finds the names of weights that no output of the module depends on.
    """

    part: Part
    weights: Mapping[str, LazyWeight]
    graph: Path
    modules: ModuleMap
    folder: Path | None = None
    unused: Callable[[], Collection[str]] = tuple


@dataclass(frozen=True, slots=True)
class BlockSettings:
    """How much is done.

    Attributes:
        n_float64: Of how many blocks the floor is measured in float64: the first, the last, others between.
            What lies before and after the blocks always has one, and so has a block that would fail without.
        gates: The user's own limits.
        n_threads: Of ONNX Runtime.
        progress: Is told which block of which case is done.
        answered: Is told what PyTorch answers to a case as a whole, in float32.
    """

    n_float64: int = 3
    gates: Gates = field(default_factory=Gates)
    n_threads: int | None = None
    progress: Callable[[str], None] = lambda _: None
    answered: Callable[[Case, Mapping[str, np.ndarray]], None] = lambda *_: None


@dataclass(slots=True)
class Bench:
    """What all cases share."""

    subject: BlockSubject
    settings: BlockSettings
    blocks: tuple[tuple[str, nn.Module], ...]
    measured: list[Measured] = field(default_factory=list)
    names: dict[str, list[str | None]] = field(default_factory=dict)  # place -> what its tensors are called
    exact: dict[str, None] = field(default_factory=dict)  # places that had a float64 floor
    floors: list[tuple[float, float]] = field(
        default_factory=list
    )  # of sampled blocks, relative to the output
    cutter: Cutter = field(init=False)
    folder: Path = field(init=False)
    sampled: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        """Read the graph, without its weights."""
        graph = self.subject.graph
        model = onnx.load(str(graph), load_external_data=False)
        self.cutter = Cutter(model, self.subject.modules, [path for path, _ in self.blocks])
        self.folder = self.subject.folder or graph.parent
        self.sampled = sampled_blocks(len(self.blocks), self.settings.n_float64)

    def streamed(self, run: Callable[[], Any], *, double: bool = False) -> Any:
        """Run something of the module with its weights."""
        return run_streamed(self.subject.part.module, self.subject.weights, run, double=double)

    def sampled_text(self) -> str:
        """Say which floors were measured, and where the others are from."""
        paths = [path for path, _ in self.blocks]
        sampled = [path.rpartition(".")[2] for path in paths if path in self.exact]
        text = f"float64 floor: {len(sampled)} of {len(paths)} blocks ({', '.join(sampled) or 'none'})"
        text += ", and what lies before and after them" if {BEFORE, AFTER} <= self.exact.keys() else ""
        others = len(sampled) < len(paths)
        return text + ("; other blocks are held against the widest of these floors" if others else "")

    def origin(self, findings: Sequence[Finding]) -> str:
        """Return the first place that differs, in the order of the module."""
        order = [BEFORE, *(place for path, _ in self.blocks for place in (before(path), path)), AFTER]
        compared = {place_of(found.output) for found in findings}
        bad = {place_of(found.output) for found in findings if not found.passed}
        first = next((place for place in order if place in bad), None)
        if first is None:
            return ""
        where = f"in block '{first}'" if first in {path for path, _ in self.blocks} else first
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        return f"differs {where}{more}; {len(compared - bad)} other pieces agree"


def sampled_blocks(n_blocks: int, n_float64: int) -> frozenset[int]:
    """Return the blocks whose floor is measured in any case: evenly spread, the first always.

    >>> sorted(sampled_blocks(60, 3))
    [0, 30, 59]
    """
    n_steps = max(min(n_float64, n_blocks) - 1, 0)
    return frozenset(
        {0, *(round(step * (n_blocks - 1) / n_steps) for step in range(n_steps and n_steps + 1))}
    )


def before(path: str) -> str:
    """Return what the place is called where a module does something between two blocks."""
    return f"before block '{path}'"


def place_of(label: str) -> str:
    """Return the place that an output was compared at."""
    return label.partition(": ")[0]


class _ReachedError(Exception):
    """The first block is reached; its inputs are kept."""

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__("reached")
        self.inputs = inputs


class CaseRun:
    """One case: PyTorch runs, and the graph is held against it wherever a block begins or ends."""

    def __init__(self, bench: Bench, place: Place) -> None:
        part = bench.subject.part
        inputs = part.signature.inputs
        self._bench, self._place = bench, place
        self._adapter = Adapter(part)
        feeds = place.case.arrays(inputs)
        self._tensors = tensors_from([feeds[spec.name] for spec in inputs])
        # what the graph computes, with PyTorch's numbers; and which tensor of PyTorch's is which
        self._known: dict[str, np.ndarray] = {name: feeds[name] for name in bench.cutter.inputs}
        self._held: dict[int, Tensor] = {
            id(tensor): tensor
            for spec, tensor in zip(inputs, self._tensors, strict=True)
            if spec.name in self._known
        }
        self._inputs: list[Any] = []  # of the block that runs
        self._recorded: list[Any] = []  # what each block returned

    def answer(self) -> Answer:
        """Run the case; return PyTorch's answer to the whole."""
        with self._listening(self._before_in_float64()):
            outputs = self._bench.streamed(lambda: self._adapter(*self._tensors))
        if len(self._recorded) < len(self._bench.blocks):
            raise self._out_of_turn(len(self._recorded))
        names = [spec.name for spec in self._bench.subject.part.signature.outputs]
        singles = dict(zip(names, (_array(one) for one in outputs), strict=True))
        self._bench.settings.answered(self._place.case, singles)
        double = self._double(AFTER, self._after_in_float64)
        doubles = dict(zip(names, double, strict=True)) if double is not None else None
        labels = {name: f"{AFTER}: {name}" for name in names}
        return self._compare(AFTER, {name: name for name in names}, labels, (singles, doubles))

    # ── PyTorch ──────────────────────────────────────────────────────────────────────────────────────
    def _before_in_float64(self) -> list[np.ndarray] | None:
        """Return the inputs of the first block in float64; all is run up to there and no further."""

        def stop(_: nn.Module, args: Any, kwargs: Any) -> None:
            raise _ReachedError(_tensors((args, kwargs)))

        def run() -> list[np.ndarray]:
            with _hooked(self._bench.blocks[0][1].register_forward_pre_hook(stop, with_kwargs=True)):
                try:
                    self._bench.streamed(lambda: self._adapter(*lifted(self._tensors)), double=True)
                except _ReachedError as reached:
                    return [_array(one) for one in reached.inputs]
            raise NoTwinError("no block was reached")

        return self._double(BEFORE, run)

    def _after_in_float64(self) -> list[np.ndarray]:
        """Return the outputs of the part in float64, from what the blocks have returned in float32."""
        with _replaced([block for _, block in self._bench.blocks], self._recorded):
            outputs = self._bench.streamed(lambda: self._adapter(*lifted(self._tensors)), double=True)
        return [_array(one) for one in outputs]

    def _double(self, place: str, run: Callable[[], list[np.ndarray]]) -> list[np.ndarray] | None:
        try:
            double = run()
        except NoTwinError:
            return None
        self._bench.exact[place] = None
        return double

    @contextmanager
    def _listening(self, doubles: list[np.ndarray] | None) -> Iterator[None]:
        hooks = []
        for number, (_, block) in enumerate(self._bench.blocks):
            begins, ends = partial(self._begins, number, doubles), partial(self._ends, number)
            hooks.append(block.register_forward_pre_hook(begins, with_kwargs=True))
            hooks.append(block.register_forward_hook(ends, with_kwargs=True))
        with _hooked(*hooks):
            yield

    def _begins(
        self, number: int, doubles: list[np.ndarray] | None, _: nn.Module, args: Any, kwargs: Any
    ) -> None:
        """Hold what the block is given against the graph, where it is not a block's output or an input."""
        path = self._bench.blocks[number][0]
        if number != len(self._recorded):
            raise self._out_of_turn(min(number, len(self._recorded)))
        place = BEFORE if number == 0 else before(path)
        targets = _tensors((args, kwargs))
        self._inputs = [_copied(args), _copied(kwargs)]
        unknown = [i for i, one in enumerate(targets) if id(one) not in self._held]
        is_exact = number == 0 and doubles is not None and len(doubles) == len(targets)
        exact = [doubles[i] for i in unknown] if is_exact and doubles is not None else None
        self._match(place, self._bench.cutter.between(path), [targets[i] for i in unknown], lambda: exact)

    def _ends(self, number: int, block: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        """Hold what the block returns against the graph."""
        path = self._bench.blocks[number][0]
        self._recorded.append(_copied(output))

        def double() -> list[np.ndarray] | None:
            args, kwargs = lifted(self._inputs)
            return self._double(path, lambda: [_array(one) for one in _tensors(self._bench.streamed(
                lambda: block.forward(*args, **kwargs), double=True))])  # fmt: skip

        targets = _tensors(output)
        self._match(path, self._bench.cutter.exits(path), targets, double)
        if not any(self._bench.names[path]):
            raise ExportError(f"the graph has no value of the form that leaves block '{path}'")
        self._inputs = []
        case = self._place
        self._bench.settings.progress(f"case {case.number} of {case.n_cases}, block {number + 1}")

    def _out_of_turn(self, number: int) -> UsageError:
        return UsageError(
            f"block '{self._bench.blocks[number][0]}' does not run once and in its turn",
            where=f"part {self._bench.subject.part.name}",
            do="a list of blocks can be proven block by block if forward() calls each of them, in order",
        )

    # ── the graph ────────────────────────────────────────────────────────────────────────────────────
    def _match(
        self,
        place: str,
        candidates: Sequence[str],
        targets: Sequence[Tensor],
        double: Callable[[], list[np.ndarray] | None],
    ) -> None:
        """Find which values of the graph are these tensors, and hold them against each other."""
        arrays = [_array(one) for one in targets]
        if place not in self._bench.names:
            self._bench.names[place] = self._names(candidates, arrays)
        named = {str(i): name for i, name in enumerate(self._bench.names[place]) if name is not None}
        if not named:
            return
        singles = {key: arrays[int(key)] for key in named}
        labels = {key: f"{place}: {name}" for key, name in named.items()}
        number = next((i for i, (path, _) in enumerate(self._bench.blocks) if path == place), None)
        if number is None or number in self._bench.sampled or not self._bench.floors:
            self._compare(place, named, labels, (singles, _by_key(double())))
        else:
            self._compare(place, named, labels, (singles, None), lambda: _by_key(double()))
        for key, name in named.items():
            self._known[name] = arrays[int(key)].copy()
            self._held[id(targets[int(key)])] = targets[int(key)]

    def _names(self, candidates: Sequence[str], arrays: Sequence[np.ndarray]) -> list[str | None]:
        """Return the value that is nearest to each array, among those of its form; ``None`` for no such.

        However they are found, the proof holds: each is compared, and what follows is computed from it.
        """
        values = self._run(candidates) if candidates else {}
        pairs = sorted(
            (_distance(value, array), place, name)
            for place, array in enumerate(arrays)
            for name, value in values.items()
            if (value.shape, value.dtype) == (array.shape, array.dtype)
        )
        found: dict[int, str] = {}
        for _, place, name in pairs:
            if place not in found and name not in found.values():
                found[place] = name
        return [found.get(place) for place in range(len(arrays))]

    def _run(self, outputs: Sequence[str], block: str | None = None) -> dict[str, np.ndarray]:
        bench = self._bench
        piece = bench.cutter.piece(outputs, self._known)
        strangers = bench.cutter.strangers(piece, block or "") if block is not None else ()
        if strangers:
            raise ExportError(
                f"the graph cannot be cut around '{block}': "
                f"that piece computes with weights of '{strangers[0]}'",
                do="the values between them were fused or renamed: prove the graph as it was exported",
            )
        return bench.cutter.run(piece, self._known, bench.folder, bench.settings.n_threads)

    def _compare(
        self,
        place: str,
        named: Mapping[str, str],
        labels: Mapping[str, str],
        sides: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray] | None],
        more: Callable[[], Mapping[str, np.ndarray] | None] | None = None,
    ) -> Answer:
        """Judge some values of the graph; ``more`` gives float64 answers if they would fail without."""
        singles, doubles = sides
        self._check_finite(place, singles)
        found = self._run(list(named.values()), place if place != BEFORE else "")
        got = {labels[key]: found[name] for key, name in named.items()}
        is_block = place not in {BEFORE, AFTER}
        answer = self._answer(labels, singles, doubles, is_block=is_block)
        measured = self._measured(answer, got)
        if more is not None and not all(judge(one, one.floor, frozenset()).passed for one in measured):
            answer = self._answer(labels, singles, more(), is_block=is_block)
            measured = self._measured(answer, got)
        self._bench.measured += measured
        return Answer(
            dict(singles),
            {key: answer.floors[labels[key]] for key in singles if labels[key] in answer.floors},
        )

    def _check_finite(self, place: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse a reference that is broken itself; masks may be infinite, extreme cases anything."""
        if self._place.case.kind == "boundary":
            return
        computes = place == AFTER or place in dict(self._bench.blocks)
        for array in arrays.values():
            if not np.issubdtype(array.dtype, np.floating):
                continue
            if np.isnan(array).any() or (computes and np.isinf(array).any()):
                raise MismatchError(
                    f"PyTorch itself answers NaN or infinity: {place}",
                    where=f"part {self._bench.subject.part.name}, case '{self._place.case.name}'",
                )

    def _answer(
        self,
        labels: Mapping[str, str],
        singles: Mapping[str, np.ndarray],
        doubles: Mapping[str, np.ndarray] | None,
        *,
        is_block: bool,
    ) -> Answer:
        outputs: dict[str, np.ndarray] = {}
        floors: dict[str, Floor] = {}
        for key, single in singles.items():
            double = None if doubles is None else doubles.get(key)
            outputs[labels[key]] = single if double is None else _rounded(double, single)
            if np.issubdtype(single.dtype, np.floating):
                floors[labels[key]] = self._floor(single, double, is_block=is_block)
        return Answer(outputs, floors)

    def _floor(self, single: np.ndarray, double: np.ndarray | None, *, is_block: bool) -> Floor:
        spacing = measure_floor(single, single.astype(np.float64), "spacing")
        largest, rms = spacing.max_abs / FLOAT32_EPSILON, spacing.rms / FLOAT32_EPSILON
        if double is not None:
            floor = measure_floor(single, double, "PyTorch float32 against float64, streamed")
            if is_block and floor.is_finite:
                self._bench.floors.append((floor.max_abs / largest, floor.rms / rms))
            return floor
        if not self._bench.floors:
            how = "8 spacings of float32 (it cannot be run in float64)"
            return Floor(_BLIND_SPACINGS * spacing.max_abs, _BLIND_SPACINGS * spacing.rms, how)
        widest = [max(column) for column in zip(*self._bench.floors, strict=True)]
        how = "the widest floor of PyTorch in float64 among the sampled blocks, relative to the output"
        return Floor(widest[0] * largest, widest[1] * rms, how)

    def _measured(self, answer: Answer, got: Mapping[str, np.ndarray]) -> list[Measured]:
        gates = self._bench.settings.gates
        return [measure(self._place, name, (answer, got), (), gates) for name in answer.outputs]


@contextmanager
def _hooked(*hooks: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _replaced(blocks: Sequence[nn.Module], outputs: Sequence[Any]) -> Iterator[None]:
    """Let blocks return what was recorded, in float64."""
    own = [vars(block).get("forward") for block in blocks]

    def give(output: Any, *_: Any, **__: Any) -> Any:
        return lifted(output)

    try:
        for block, output in zip(blocks, outputs, strict=True):
            block.forward = partial(give, output)
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            vars(block).pop("forward", None)
            if forward is not None:
                block.forward = forward


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _copied(value: Any) -> Any:
    return tree_map(lambda one: one.detach().clone() if isinstance(one, Tensor) else one, value)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().numpy()
    return array


def _rounded(double: np.ndarray, single: np.ndarray) -> np.ndarray:
    """Return float64 numbers in the type of others, and those where they are beyond it, as a mask's are."""
    with np.errstate(over="ignore"):
        rounded = double.astype(single.dtype)
    return np.where(np.isfinite(rounded), rounded, single) if np.isinf(rounded).any() else rounded


def _by_key(arrays: Sequence[np.ndarray] | None) -> dict[str, np.ndarray] | None:
    return None if arrays is None else {str(i): array for i, array in enumerate(arrays)}


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    if not np.issubdtype(one.dtype, np.floating):
        return float(np.count_nonzero(one != other))
    with np.errstate(all="ignore"):
        largest = float(np.max(np.abs(one.astype(np.float64) - other), initial=0.0))
    return largest if np.isfinite(largest) else np.inf
