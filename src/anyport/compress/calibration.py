"""Ranges of activations from samples, in bounded memory.

ONNX Runtime's own calibrators keep every activation of every sample (256 GB for a BERT, onnxruntime #10503).
Here the graph itself reduces each activation to its extremes, in one pass over the samples. A rule that needs
a histogram goes over them again, a few activations at a time: those that fit into `CHUNK_BYTES` together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from anyport.compress.methods import MinMax
from anyport.compress.ranges import N_BINS, Histogram, Range, chosen_range
from anyport.compress.samples import words_for
from anyport.errors import CompressError
from anyport.graph.rewriting import load_graph
from anyport.graph.storing import write_model
from anyport.runtime import SessionOptions, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from anyport.compress.methods import Ranges
    from anyport.compress.samples import Samples

    Progress = Callable[[str, str], None]

CHUNK_BYTES: Final = 64 << 20
_LEVEL: Final = "basic"  # what is asked for must exist: fusions beyond it would only be undone
_PROBE: Final = ".probe.onnx"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is needed to find ranges.

    Attributes:
        graph: The .onnx file, its weights beside it or inside; probes are written into its folder.
        samples: Gone over once for extremes, and once more for each chunk of histograms.
        progress: Called with ``calibrate`` and a line.
    """

    graph: Path
    samples: Samples
    progress: Progress | None = None

    def say(self, line: str) -> None:
        """Report."""
        if self.progress is not None:
            self.progress("calibrate", line)


def calibrate(calibration: Calibration, names: Sequence[str], ranges: Ranges) -> dict[str, Range]:
    """Return the range of each of these values.

    Raises:
        CompressError: There are no samples, or a value is not finite.
        InputError: A sample does not fit the graph.
    """
    if not names:
        return {}
    extremes, sizes = _extremes(calibration, names)
    calibration.say(
        f"{len(names)} activations, {len(calibration.samples)} samples of {calibration.samples.name}"
    )
    if isinstance(ranges, MinMax):
        return extremes
    found: dict[str, Range] = {}
    for chunk in chunks(names, sizes, CHUNK_BYTES):
        histograms = _histograms(calibration, chunk, extremes)
        found |= {name: chosen_range(histogram, ranges) for name, histogram in histograms.items()}
        calibration.say(f"{ranges.text}: {len(found)} of {len(names)} activations")
    return found


def chunks(names: Iterable[str], sizes: Mapping[str, int], limit_bytes: int) -> Iterator[tuple[str, ...]]:
    """Divide values, in their order, into groups that stay within a limit; one alone may be beyond it.

    >>> list(chunks("abc", {"a": 3, "b": 4, "c": 9}, 7))
    [('a', 'b'), ('c',)]
    """
    group: list[str] = []
    for name in names:
        if group and sum(sizes[one] for one in group) + sizes[name] > limit_bytes:
            yield tuple(group)
            group = []
        group.append(name)
    if group:
        yield tuple(group)


def _extremes(calibration: Calibration, names: Sequence[str]) -> tuple[dict[str, Range], dict[str, int]]:
    """Return the extremes of each value over all samples, and its most bytes in one of them."""
    found: dict[str, Range] = {}
    sizes: dict[str, int] = {}
    for number, answers in enumerate(_runs(calibration, _reducing_probe(calibration.graph, names))):
        for place, name in enumerate(names):
            low, high, odd, size = (answers[f"{word}.{place}"] for word in ("low", "high", "odd", "size"))
            seen = Range(float(low), float(high))
            if not np.isfinite([low, high, odd]).all():
                raise _not_finite(calibration, number, f"activation '{name}'", seen)
            found[name] = seen.joined(found[name]) if name in found else seen
            sizes[name] = max(sizes.get(name, 0), int(size) * np.dtype(np.float32).itemsize)
    if not found:
        raise CompressError(
            f"'{calibration.samples.name}' gives no samples, and ranges come from samples",
            do="give some: --calibrate pictures/, or --calibrate calibrate.py:samples",
        )
    return found, sizes


def _not_finite(calibration: Calibration, place: int, what: str, seen: Range | None = None) -> CompressError:
    is_hidden = seen is None or bool(np.isfinite([seen.low, seen.high]).all())
    said = "it holds NaN" if seen is None or is_hidden else f"from {seen.low} to {seen.high}"
    return CompressError(
        f"{what} is not finite in {words_for(calibration.samples, place)}: {said}",
        do="leave out the samples that the model has no answer to",
    )


def _histograms(
    calibration: Calibration, names: Sequence[str], extremes: Mapping[str, Range]
) -> dict[str, Histogram]:
    counts = {name: np.zeros(N_BINS) for name in names}
    for answers in _runs(calibration, _returning_probe(calibration.graph, names)):
        for place, name in enumerate(names):
            seen = extremes[name]
            if seen.high > seen.low:
                values = answers[f"value.{place}"]
                counts[name] += np.histogram(values, bins=N_BINS, range=(seen.low, seen.high))[0]
    return {name: Histogram(extremes[name], counts[name]) for name in names}


def _runs(calibration: Calibration, probe: ir.Model) -> Iterator[dict[str, np.ndarray]]:
    """Write a probe beside the graph, whose weights it shares, and yield its answers to each sample."""
    path = calibration.graph.with_name(_PROBE)
    write_model(probe, path)
    try:
        session = open_session(path, SessionOptions(optimization=_LEVEL))
        try:
            for place, feeds in enumerate(calibration.samples):
                _check_feeds(calibration, place, feeds)
                yield session.run(feeds)
        finally:
            session.close()
    finally:
        path.unlink(missing_ok=True)


def _check_feeds(calibration: Calibration, place: int, feeds: Mapping[str, np.ndarray]) -> None:
    for name, array in feeds.items():
        # infinity may be a mask; where it counts, the probe sees it
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise _not_finite(calibration, place, f"input '{name}'")


def _reducing_probe(graph: Path, names: Sequence[str]) -> ir.Model:
    """Return the graph with the least and largest element and the size of each value as its outputs.

    ``ReduceMin`` and ``ReduceMax`` pass over a NaN at most places; the sum of ``value - value`` never does.
    """
    model = load_graph(graph)
    values = _values(model)
    outputs = []
    for place, name in enumerate(names):
        zeros = ir.Value(name=f"zeros.{place}", type=ir.TensorType(ir.DataType.FLOAT))
        model.graph.append(ir.node("Sub", [values[name], values[name]], outputs=[zeros]))
        for word, operator, kind in _REDUCTIONS:
            words = {"keepdims": 0} if operator != "Size" else None
            made = ir.Value(name=f"{word}.{place}", type=ir.TensorType(kind), shape=ir.Shape([]))
            source = zeros if word == "odd" else values[name]
            model.graph.append(ir.node(operator, [source], words, outputs=[made]))
            outputs.append(made)
    return _with_outputs(model, outputs)


_REDUCTIONS: Final = (
    ("low", "ReduceMin", ir.DataType.FLOAT),
    ("high", "ReduceMax", ir.DataType.FLOAT),
    ("odd", "ReduceSum", ir.DataType.FLOAT),
    ("size", "Size", ir.DataType.INT64),
)


def _returning_probe(graph: Path, names: Sequence[str]) -> ir.Model:
    """Return the graph with these values as its outputs."""
    model = load_graph(graph)
    values = _values(model)
    outputs = []
    for place, name in enumerate(names):
        # without a shape: it is whatever comes out
        made = ir.Value(name=f"value.{place}", type=ir.TensorType(ir.DataType.FLOAT))
        model.graph.append(ir.node("Identity", [values[name]], outputs=[made]))
        outputs.append(made)
    return _with_outputs(model, outputs)


def _values(model: ir.Model) -> dict[str, ir.Value]:
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    return values | {str(value.name): value for value in model.graph.inputs} | dict(model.graph.initializers)


def _with_outputs(model: ir.Model, outputs: Sequence[ir.Value]) -> ir.Model:
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    return model
