"""The three gates behind every method: it did something, it is faster, the metric holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from anyport.bundle.disk import size_text
from anyport.compress.rewrite import kept_line
from anyport.errors import CompressError
from anyport.graph.fastest import TIE
from anyport.graph.storing import count_operators
from anyport.runtime.onnxfile import weights_size
from anyport.verify.agreement import what_helps
from anyport.verify.verdict import Status

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anyport.compress.quantizing import Quantized
    from anyport.verify.agreement import Evaluation

_BITS: Final = {
    ir.DataType.BFLOAT16: 16,
    ir.DataType.FLOAT16: 16,
    ir.DataType.INT8: 8,
    ir.DataType.UINT8: 8,
}


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What a file holds, whatever its maker says.

    Attributes:
        operators: Operator -> number of nodes.
        size_bytes: Of the file and the weights beside it.
        narrow_bytes: Bits of an element -> bytes of the weights in 8 and in 16 bits.
    """

    operators: Mapping[str, int]
    size_bytes: int
    narrow_bytes: Mapping[int, int]

    @property
    def n_nodes(self) -> int:
        """How many nodes the graph has."""
        return sum(self.operators.values())

    def narrower_bytes(self, original: GraphFacts) -> int:
        """Return the bytes of the weights that the original has in more bits."""
        return sum(max(n - original.narrow_bytes.get(bits, 0), 0) for bits, n in self.narrow_bytes.items())


def read_facts(path: Path) -> GraphFacts:
    """Read the facts of a file; its weights are not read."""
    model = ir.load(str(path))  # as it is stored
    narrow_bytes: Counter[int] = Counter()
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in _BITS:
            narrow_bytes[_BITS[tensor.dtype]] += tensor.nbytes
    return GraphFacts(count_operators(model), weights_size(path), narrow_bytes)


def check_did_something(original: GraphFacts, found: GraphFacts, quantized: Quantized) -> None:
    """Pass the first gate: the file is smaller, by weights in fewer bits, and its nodes say so.

    Raises:
        CompressError: They do not.
    """
    sizes = f"{size_text(original.size_bytes)} -> {size_text(found.size_bytes)}"
    narrower = found.narrower_bytes(original)
    if found.operators == original.operators:
        said = f"did nothing: the nodes are the same, {sizes}"
    elif not narrower:
        said = f"did nothing: no weight is stored in fewer bits, {sizes}"
    elif found.size_bytes >= original.size_bytes:
        said = f"made the file no smaller: {size_text(narrower)} of weights are in fewer bits, {sizes}"
    else:
        return
    raise CompressError(
        f"{quantized.method.text} {said}",
        where=f"stayed float: {kept_line(quantized.kept_float) or 'nothing is known to hold weights'}",
        do="take another method, or leave the model as it is",
    )


def is_faster(ratio: float) -> bool:
    """Say whether a ratio is above 1 by more than the noise of such ratios."""
    return ratio > 1 + TIE


def check_faster(method: str, ratio: float, baseline: str) -> None:
    """Pass the second gate: faster than the fastest proven fp32, by more than noise.

    Raises:
        CompressError: It is not.
    """
    if is_faster(ratio):
        return
    raise CompressError(
        f"{method} is not faster: {ratio:.2f}x the speed of fp32 at level {baseline}, "
        f"more than {1 + TIE:.2f}x is needed",
        do="leave the model as it is, or say that its size matters: --prefer size",
    )


def check_metric(method: str, evaluation: Evaluation) -> None:
    """Pass the third gate: the metric holds.

    Raises:
        CompressError: It does not, or the samples say too little.
    """
    if evaluation.passed:
        return
    is_unknown = evaluation.status is Status.INCONCLUSIVE
    said = "cannot be judged" if is_unknown else "does not hold the metric"
    raise CompressError(f"{method} {said}: {evaluation.deciding.line}", do=what_helps(evaluation.deciding))
