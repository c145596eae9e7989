"""How much work a part is, counted on torch's meta device: no weight is there, and no number is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from anyport.build.proving import sweep_settings
from anyport.errors import SourceError
from anyport.graph.capture import example_sizes
from anyport.source.adapter import Adapter
from anyport.source.lines import first_line
from anyport.verify import plan_cases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.build.plan import BuildSettings
    from anyport.cases import Case
    from anyport.recipe import Part

_SCALAR: Final = torch.ops.aten._local_scalar_dense.default  # noqa: SLF001  (what .item() and bool() become)


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
        weights: What the graph keeps of the parameters and buffers that a run reads: bytes and number of axes
            of each. Two names of one tensor count once.
        cases: That are planned; those of the recipe or of the user come on top.
        runs: One for each case.
    """

    weights: tuple[tuple[int, int], ...]
    cases: tuple[Case, ...]
    runs: tuple[Run, ...]

    @property
    def n_calls(self) -> int:
        """Operators of one run: what an export translates."""
        return max(run.n_calls for run in self.runs)

    @property
    def weight_bytes(self) -> int:
        """What the graph keeps."""
        return sum(size for size, _ in self.weights)


def workload_of(part: Part, settings: BuildSettings) -> Workload:
    """Plan the cases of a part and count what each of them computes.

    Args:
        part: Its module is on the meta device.
        settings: Say how many cases there are, and how large.

    Raises:
        SourceError: The module decides something by a value that only weights have.
    """
    signature = part.signature
    seen = example_sizes(tuple(signature.dims.values()))
    sweep = sweep_settings(settings, seen, part.max_case_bytes)
    plan = plan_cases(signature.inputs, signature.dims, sweep, (), signature.outputs)
    adapter, counted = Adapter(part), dict[tuple[tuple[str, int], ...], Run]()
    used: set[int] = set()
    for case in plan.cases:
        key = tuple(sorted(case.sizes.items()))
        if key not in counted:
            counted[key] = _count(part, adapter, case.sizes, used)
    own = _own_tensors(part.module)
    weights = tuple((own[key].nbytes, own[key].ndim) for key in used)
    return Workload(
        tuple(sorted(weights)), plan.cases, tuple(counted[tuple(sorted(c.sizes.items()))] for c in plan.cases)
    )


def count_run(part: Part, sizes: Mapping[str, int]) -> Run:
    """Count what one run of a part computes.

    Args:
        part: Its module is on the meta device.
        sizes: Of its named axes.

    Raises:
        SourceError: The module decides something by a value that only weights have.
    """
    return _count(part, Adapter(part), sizes, set())


def _count(part: Part, adapter: Adapter, sizes: Mapping[str, int], used: set[int]) -> Run:
    tensors = [
        torch.empty(spec.shape(sizes), dtype=getattr(torch, spec.dtype), device="meta")
        for spec in part.signature.inputs
    ]
    counter = _Counter(part.module, used)
    try:
        with torch.no_grad(), counter:
            outputs = adapter(*tensors)
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as err:
        raise SourceError(
            f"part '{part.name}' cannot be outlined without its weights: {first_line(err)}",
            do="anyport build … --dry-run shows what will be done; the cost is not known beforehand",
        ) from err
    return counter.run(tensors, outputs)


def _own_tensors(module: nn.Module) -> dict[int, Tensor]:
    return {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}


class _Counter(TorchDispatchMode):
    """Counts every operator that is run below it, and notes which weights it reads."""

    def __init__(self, module: nn.Module, used: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._own = _own_tensors(module)
        self._used = used
        self._n_calls = self._n_flops = self._moved_bytes = self._peak_bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 -- torch's own signature
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 -- torch's own signature
        """Run one operator, which on the meta device costs nothing."""
        self._n_calls += 1
        given = dict(kwargs or {})
        for leaf in tree_leaves((args, given)):
            if isinstance(leaf, Tensor) and id(leaf) in self._own:
                self._used.add(id(leaf))
        if func is _SCALAR:
            return False  # of a branch by a value, the way that a mask with padding takes
        answer = func(*args, **given)
        if func._overloadpacket in flop_registry:  # noqa: SLF001  (no public way)
            self._n_flops += flop_registry[func._overloadpacket](*args, **given, out_val=answer)  # noqa: SLF001
        if not func.is_view:
            size = sum(leaf.nbytes for leaf in tree_leaves(answer) if isinstance(leaf, Tensor))
            self._moved_bytes += size
            self._peak_bytes = max(self._peak_bytes, size)
        return answer

    def run(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Run:
        """Return what was counted."""
        return Run(
            self._n_calls,
            self._n_flops,
            self._moved_bytes,
            self._peak_bytes,
            sum(tensor.nbytes for tensor in inputs),
            tuple((tensor.numel(), tensor.nbytes) for tensor in outputs),
        )
