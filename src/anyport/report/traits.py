"""What of a bundle decides where it should run: read from its manifest and its graph files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from anyport.bench.inputs import batch_axis
from anyport.errors import BundleError
from anyport.report.factlines import opset_of, parameters_of
from anyport.runtime.graphfile import read_graph
from anyport.verify.sizes import middle_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.bundle import Bundle, PartEntry

Kind = Literal["cnn", "dense", "recurrent", "transformer"]

KINDS: Final[Mapping[Kind, str]] = {
    "cnn": "a convolutional network",
    "dense": "a network of matrices without attention",
    "recurrent": "a recurrent network",
    "transformer": "a transformer",
}
_RECURRENT: Final = ("GRU", "LSTM", "RNN")
_ATTENTION: Final = ("Attention", "GroupQueryAttention", "MultiHeadAttention", "Softmax")
_CONVOLUTIONS: Final = ("Conv", "ConvTranspose")
_PRODUCTS: Final = ("Gemm", "MatMul")
_MIN_TRANSFORMER_PRODUCTS: Final = 6  # one layer: query, key, value, output, and two of the feed-forward
_OWN_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_CACHE_WORDS: Final = ("past", "cache", "present")


@dataclass(frozen=True, slots=True)
class Traits:
    """One variant of a bundle, as far as a target cares.

    Attributes:
        name: Of the bundle.
        variant: Which one was read.
        kind: What it is made of, by its operators.
        operators: Operator -> number of nodes, of all parts.
        size_bytes: Graphs and weights.
        largest_bytes: The largest single tensor of weights.
        n_parameters: Elements of the weights.
        fix: Named axis -> a size for it; empty if everything is fixed.
        opset: The newest one of its graphs.
        has_cache: It takes and gives a cache: it is run once for each token.
        domains: Operator sets of others than ONNX and ONNX Runtime.
        calibrated: It has variants that were compressed, so that its build knows samples.
        command: What built it.
    """

    name: str
    variant: str
    kind: Kind
    operators: Mapping[str, int]
    size_bytes: int
    largest_bytes: int
    n_parameters: int
    fix: Mapping[str, int]
    opset: int
    has_cache: bool
    domains: tuple[str, ...]
    calibrated: bool
    command: str

    def has(self, *operators: str) -> bool:
        """Say whether the graphs have any of these operators."""
        return any(self.operators.get(name, 0) for name in operators)


def traits_of(bundle: Bundle, variant: str | None = None) -> Traits:
    """Read what decides.

    Raises:
        BundleError: A graph is no .onnx file.
        UsageError: There is no such variant.
    """
    manifest = bundle.manifest
    name = manifest.default_variant if variant is None else variant
    graphs = [bundle.graph_file(part, name) for part in manifest.parts]
    sizes = {entry.path: entry.size_bytes for entry in manifest.files}
    operators: Counter[str] = Counter()
    largest, opset, n_parameters, domains = 0, 0, 0, set[str]()
    for graph in graphs:
        try:
            model = read_graph(graph.path)
        except (OSError, ValueError) as err:
            raise BundleError(
                f"{graph.path.name} is no whole .onnx file: {err}", where=graph.part_name
            ) from err
        operators += Counter(node.operator for node in model.all_nodes())
        opset, n_parameters = max(opset, opset_of(model)), n_parameters + parameters_of(model)
        largest = max([largest, *(one.size_bytes for one in model.weights())])
        domains |= {node.domain for node in model.all_nodes()} - _OWN_DOMAINS
    return Traits(
        name=bundle.path.name,
        variant=name,
        kind=kind_of(operators),
        operators=operators,
        size_bytes=sum(sizes[g.entry.file] + sizes.get(g.entry.weights or "", 0) for g in graphs),
        largest_bytes=largest,
        n_parameters=n_parameters,
        fix=_fixes(manifest.parts),
        opset=opset,
        has_cache=any(_has_cache(part) for part in manifest.parts.values()),
        domains=tuple(sorted(domains)),
        calibrated=any(step.verb == "compress" for v in manifest.variants.values() for step in v.steps),
        command=manifest.provenance.command,
    )


def kind_of(operators: Mapping[str, int]) -> Kind:
    """Say what a graph is made of.

    >>> kind_of({"Conv": 20, "Gemm": 1}), kind_of({"Conv": 1, "MatMul": 72, "Softmax": 12})
    ('cnn', 'transformer')
    """
    n_products = sum(operators.get(name, 0) for name in _PRODUCTS)
    if any(operators.get(name, 0) for name in _RECURRENT):
        return "recurrent"
    has_attention = any(operators.get(name, 0) for name in _ATTENTION)
    if has_attention and n_products >= _MIN_TRANSFORMER_PRODUCTS:
        return "transformer"
    n_convolutions = sum(operators.get(name, 0) for name in _CONVOLUTIONS)
    return "cnn" if n_convolutions and n_convolutions >= n_products else "dense"


def _fixes(parts: Mapping[str, PartEntry]) -> dict[str, int]:
    """Return a size for every dynamic axis: the least for a batch, the middle of the range for others."""
    found: dict[str, int] = {}
    for part in parts.values():
        batch = batch_axis(part.input_specs())
        for name, spread in part.dim_ranges().items():
            found.setdefault(name, spread.low if name == batch else middle_size(spread))
    return found


def _has_cache(part: PartEntry) -> bool:
    both = (part.inputs, part.outputs)
    return all(any(word in name.lower() for name in names for word in _CACHE_WORDS) for names in both)
