"""One graph, one method: a smaller graph in the original's layout, not yet measured or judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from anyport.compress.borrowing import borrow
from anyport.compress.calibration import Calibration, calibrate
from anyport.compress.fp16_storage import rewrite_fp16
from anyport.compress.int8_dynamic import rewrite_dynamic
from anyport.compress.int8_static import ranged_values, rewrite_static
from anyport.compress.methods import Fp16Storage, Int8Dynamic, Int8Static
from anyport.compress.rewrite import KeptFloat, Rewrite
from anyport.errors import UsageError
from anyport.graph.layout import layout_of, store_in
from anyport.graph.rewriting import load_graph
from anyport.graph.storing import count_operators
from anyport.runtime.onnxfile import weights_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from anyport.compress.methods import Method
    from anyport.compress.ranges import Range
    from anyport.compress.samples import Samples

    Progress = Callable[[str, str], None]

_MIN_OPSET: Final = 13  # DequantizeLinear with an axis


@dataclass(frozen=True, slots=True)
class Quantized:
    """A smaller graph.

    Attributes:
        method: Who made it.
        path: The .onnx file.
        operators: Operator -> number of nodes.
        n_changed: Weights that are stored smaller.
        size_bytes: Of the file and the weights beside it.
        kept_float: What holds weights and stayed float, with the reason.
    """

    method: Method
    path: Path
    operators: Mapping[str, int]
    n_changed: int
    size_bytes: int
    kept_float: tuple[KeptFloat, ...]

    @property
    def n_nodes(self) -> int:
        """How many nodes the graph has."""
        return sum(self.operators.values())


def quantize(
    graph: Path,
    method: Method,
    samples: Samples | None,
    output: Path,
    ranges: Mapping[str, Range] | None = None,
) -> Quantized:
    """Quantize a graph.

    The weights are read, quantized and written one by one; the output has them inside or beside it as the
    original has, in 16 bits what stays float and was. Initializers that nothing reads any more are dropped.

    Args:
        graph: The .onnx file.
        method: How.
        samples: For `Int8Static` without ``ranges``.
        output: The .onnx file, in an existing folder.
        ranges: Of `find_ranges`, for several flavours of one graph.

    Raises:
        UsageError: The method needs samples, or a newer opset.
        CompressError: The samples give no ranges.
    """
    model = load_graph(graph)
    _check_opset(model, method, graph)
    layout = layout_of(model)
    rewrite = Rewrite(model)
    if isinstance(method, Int8Static):
        known = find_ranges(graph, method, samples, output.parent) if ranges is None else ranges
        rewrite_static(rewrite, method, known)
    elif isinstance(method, Int8Dynamic):
        rewrite_dynamic(rewrite, method)
    else:
        rewrite_fp16(rewrite)
    rewrite.keep_inner_nodes()
    rewrite.drop_unread()
    model.metadata_props["compressed"] = method.text
    store_in(layout, model, output)
    operators = count_operators(model)
    return Quantized(method, output, operators, rewrite.n_changed, weights_size(output), tuple(rewrite.kept))


def find_ranges(
    graph: Path,
    method: Int8Static,
    samples: Samples | None,
    folder: Path,
    progress: Progress | None = None,
) -> dict[str, Range]:
    """Find the ranges that a method needs; they serve all flavours with the same rule.

    Args:
        graph: The .onnx file; its folder is not written to.
        method: Says what needs ranges, and the rule.
        samples: Gone over once, or several times where the rule needs a histogram.
        folder: An existing one, best on the graph's disk: probes of the graph are written into it.
        progress: Called with ``calibrate`` and a line.

    Raises:
        UsageError: There are no samples, or the method needs a newer opset.
        CompressError: The samples give no ranges.
    """
    if samples is None:
        raise UsageError(
            f"{method.text} needs samples to find its ranges",
            do="--calibrate pictures/, --calibrate calibrate.py:samples, or --method int8-dynamic",
        )
    _check_opset(load_graph(graph), method, graph)
    with TemporaryDirectory(prefix=".calibrate-", dir=folder) as place:
        double = borrow(graph, Path(place))
        names = ranged_values(Rewrite(load_graph(double)))
        return calibrate(Calibration(double, samples, progress), names, method.ranges)


def _check_opset(model: ir.Model, method: Method, graph: Path) -> None:
    opset = model.opset_imports.get("", 0)
    if opset < _MIN_OPSET and not isinstance(method, Fp16Storage):
        raise UsageError(
            f"{graph.name} has opset {opset}, {method.text} needs {_MIN_OPSET} or newer",
            do=f"export it again with --opset {_MIN_OPSET}, or take fp16",
        )
