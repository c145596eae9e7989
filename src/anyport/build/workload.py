"""How much work a part is, counted on torch's meta device: no weight is there, and no number is computed.

Of blocks that run one after the other and are alike, the first is counted, and stands for all of them.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from anyport.build.needed import SCALAR, needed_weights, on_meta
from anyport.build.proving import sweep_settings
from anyport.errors import SourceError
from anyport.graph.capture import example_sizes
from anyport.source.adapter import Adapter
from anyport.source.lines import first_line
from anyport.verify import plan_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from anyport.build.plan import BuildSettings
    from anyport.cases import Case
    from anyport.recipe import Part


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a part at given sizes.

    Attributes:
        n_calls: Operators that are run.
        n_flops: Of matrix products and convolutions; one multiplication and one addition are two.
        moved_bytes: The results of all operators.
        peak_bytes: The largest result of one operator.
        input_bytes: Of all inputs.
        outputs: Number of elements, and bytes, of each output.
    """

    n_calls: int
    n_flops: int
    moved_bytes: int
    peak_bytes: int
    input_bytes: int
    outputs: tuple[tuple[int, int], ...]

    @property
    def output_bytes(self) -> int:
        """Of all outputs."""
        return sum(size for _, size in self.outputs)


@dataclass(frozen=True, slots=True)
class Workload:
    """What a build runs of one part.

    Attributes:
        needed: The parameters and buffers that the outputs depend on, which the graph keeps. Two names of one
            tensor count once.
        turned: The ids of those that the graph keeps transposed.
        cases: That are planned; those of the recipe or of the user come on top.
        runs: One for each case.
    """

    needed: tuple[Tensor, ...]
    turned: frozenset[int]
    cases: tuple[Case, ...]
    runs: tuple[Run, ...]

    @property
    def weights(self) -> tuple[tuple[int, int], ...]:
        """Bytes and number of axes of each weight."""
        return tuple(sorted((tensor.nbytes, tensor.ndim) for tensor in self.needed))

    @property
    def n_calls(self) -> int:
        """Operators of one run: what an export translates."""
        return max(run.n_calls for run in self.runs)

    @property
    def weight_bytes(self) -> int:
        """What the graph keeps."""
        return sum(size for size, _ in self.weights)


def workload_of(part: Part, settings: BuildSettings, *, largest_only: bool = False) -> Workload:
    """Plan the cases of a part and count what each of them computes.

    Args:
        part: Its module is on the meta device.
        settings: Say how many cases there are, and how large.
        largest_only: Run only the case with the largest inputs: enough for disk and memory, not for time.

    Raises:
        SourceError: The module decides something by a value that only weights have.
    """
    signature = part.signature
    seen = example_sizes(tuple(signature.dims.values()))
    sweep = sweep_settings(settings, seen, part.max_case_bytes)
    cases = plan_cases(signature.inputs, signature.dims, sweep, (), signature.outputs).cases
    largest = max((case.sizes for case in cases), key=lambda sizes: _n_elements(part, sizes))
    chosen = [largest] if largest_only else [case.sizes for case in cases]
    counted = counted_runs(part, chosen)
    runs = tuple(counted.get(_key(case.sizes), counted[_key(largest)]) for case in cases)
    with _told(part):
        needed, turned = needed_weights(part, largest)
    return Workload(needed, turned, cases, runs)


def _n_elements(part: Part, sizes: Mapping[str, int]) -> int:
    return sum(math.prod(spec.shape(sizes)) for spec in part.signature.inputs)


def _key(sizes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(sizes.items()))


def counted_runs(part: Part, asked: Iterable[Mapping[str, int]]) -> dict[tuple[tuple[str, int], ...], Run]:
    """Count what runs of a part compute.

    Args:
        part: Its module is on the meta device.
        asked: The sizes of its named axes, of each run.

    Returns:
        The sorted sizes -> what is computed.

    Raises:
        SourceError: The module decides something by a value that only weights have.
    """
    adapter, known = Adapter(part), dict[Any, _Counted]()
    sizes = {_key(one): one for one in asked}
    return {key: _count(part, adapter, one, known) for key, one in sizes.items()}


def _count(part: Part, adapter: Adapter, sizes: Mapping[str, int], known: dict[Any, _Counted]) -> Run:
    tensors = on_meta(part, sizes)
    counter = _Counter()
    with _told(part), torch.no_grad(), _alike(part, counter, known), counter:
        outputs = adapter(*tensors)
    return counter.tally.run(tensors, outputs)


@contextmanager
def _told(part: Part) -> Iterator[None]:
    """Say which part it is that cannot be run without numbers."""
    try:
        yield
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as err:
        raise SourceError(
            f"part '{part.name}' cannot be outlined without its weights: {first_line(err)}",
            do="anyport build … --dry-run shows what will be done; the cost is not known beforehand",
        ) from err


@contextmanager
def _alike(part: Part, counter: _Counter, known: dict[Any, _Counted]) -> Iterator[None]:
    """Let each block of a part answer what one like it has answered, where one has."""
    listed = dict(part.module.named_modules()).get(part.blocks or "")
    blocks = list(listed) if isinstance(listed, nn.ModuleList) else []
    own = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = _remembering(counter, known, block)
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            vars(block).pop("forward", None)
            if forward is not None:
                block.forward = forward


def _remembering(counter: _Counter, known: dict[Any, _Counted], block: nn.Module) -> Callable[..., Any]:
    """Return what a block is called as: it runs for inputs that none like it has been given."""
    forward = block.forward
    return lambda *args, **words: _answer(
        counter, known, (block, args, words), lambda: forward(*args, **words)
    )


def _answer(
    counter: _Counter,
    known: dict[Any, _Counted],
    given: tuple[nn.Module, tuple[Any, ...], dict[str, Any]],
    run: Callable[[], Any],
) -> Any:  # noqa: ANN401 -- a block's own
    block, args, words = given
    weights = (*block.named_parameters(), *block.named_buffers())
    forms = tuple(_form(leaf) for leaf in tree_leaves((args, words)))
    key = (type(block), tuple((name, _form(one)) for name, one in weights), tuple(words), forms)
    if key not in known:
        outer, counter.tally = counter.tally, _Tally()
        answer = run()
        known[key] = answer, counter.tally
        counter.tally = outer
    answer, tally = known[key]
    counter.tally.add(tally)
    return answer


def _form(leaf: object) -> object:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else repr(leaf)


@dataclass(slots=True)
class _Tally:
    """What was counted."""

    n_calls: int = 0
    n_flops: int = 0
    moved_bytes: int = 0
    peak_bytes: int = 0

    def add(self, other: _Tally) -> None:
        """Count what another one has counted."""
        self.n_calls += other.n_calls
        self.n_flops += other.n_flops
        self.moved_bytes += other.moved_bytes
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)

    def run(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Run:
        """Return what a run is."""
        sizes = tuple((tensor.numel(), tensor.nbytes) for tensor in outputs)
        counts = (self.n_calls, self.n_flops, self.moved_bytes, self.peak_bytes)
        return Run(*counts, sum(tensor.nbytes for tensor in inputs), sizes)


_Counted = tuple[Any, _Tally]  # what a block answered, and what it took


class _Counter(TorchDispatchMode):
    """Counts every operator that is run below it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.tally = _Tally()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 -- torch's own signature
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 -- torch's own signature
        """Run one operator, which on the meta device costs nothing."""
        tally, given = self.tally, dict(kwargs or {})
        tally.n_calls += 1
        if func is SCALAR:
            return False  # of a branch by a value, the way that a mask with padding takes
        answer = func(*args, **given)
        if func._overloadpacket in flop_registry:  # noqa: SLF001  (no public way)
            tally.n_flops += flop_registry[func._overloadpacket](*args, **given, out_val=answer)  # noqa: SLF001  (no public way)
        if not func.is_view:
            size = sum(leaf.nbytes for leaf in tree_leaves(answer) if isinstance(leaf, Tensor))
            tally.moved_bytes += size
            tally.peak_bytes = max(tally.peak_bytes, size)
        return answer
