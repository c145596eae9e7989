"""``manifest.json`` and ``SEAL``: what a bundle is, and the digest of every file in it."""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from anyport.bundle.disk import size_text
from anyport.bundle.paths import check_names, check_paths, shown
from anyport.bundle.shards import ShardEntry
from anyport.bundle.strictjson import convert_tree, parse_json
from anyport.errors import BundleError, UsageError, did_you_mean
from anyport.tensors import Dim, TensorSpec, dim, tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT: Final = 1
MANIFEST_NAME: Final = "manifest.json"
SEAL_NAME: Final = "SEAL"
MAX_MANIFEST_BYTES: Final = 16 << 20
MAX_SEAL_BYTES: Final = 100
EXACT_PROOF_NAMES: Final = frozenset({"arrays", "cases", "task"})

_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
_BEFORE: Final = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION: Final = re.compile(  # https://semver.org, 2.0.0
    rf"{_NUMBER}(?:\.{_NUMBER}){{2}}(?:-{_BEFORE}(?:\.{_BEFORE})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Notation = Annotated[str, msgspec.Meta(max_length=1000)]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the bundle: its path with ``/``, its size, and its SHA-256 in lower-case hexadecimal."""

    path: str
    size_bytes: _Count
    sha256: _Sha256


class GraphEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One graph file.

    Attributes:
        file: Path of the graph, below ``parts/<part>/``.
        weights: Path of its safetensors file, in the same folder; ``None`` if the weights are inside.
        modules: Path of its module map, in the same folder; ``None`` if there is none.
        opset: Version of the default operator set.
        n_nodes: Number of nodes.
        operators: Operator -> number of nodes.
        n_parameters: Number of elements in the weights.
        optimization: What a runtime may rewrite while it opens the graph.
        runtime: The only runtime that has its operators; ``None``: they are ONNX's own.
        stored: Type -> bytes of the weights, such as ``bfloat16``; bundles of old do not say.
        external: The weights are not in the bundle: a session needs the folder of the checkpoint.
        shards: Its files, if they are external.
    """

    file: str
    weights: str | None
    modules: str | None
    opset: Annotated[int, msgspec.Meta(ge=1)]
    n_nodes: _Count
    operators: dict[str, _Count]
    n_parameters: _Count
    optimization: str = "all"
    runtime: str | None = None
    stored: dict[str, _Count] = {}
    external: bool = False
    shards: list[ShardEntry] = []


def stored_text(stored: Mapping[str, int]) -> str:
    """Write in which types weights are stored, the most bytes first.

    >>> stored_text({"bfloat16": 4_000_000, "float32": 8_000, "int64": 16})
    'bfloat16 4.0 MB, float32 8.0 kB, int64 16 bytes'
    """
    ordered = sorted(stored.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{dtype} {size_text(n_bytes)}" for dtype, n_bytes in ordered)


class PartEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes into a part and comes out, in the notation of `anyport.tensors`; the order counts."""

    inputs: dict[str, _Notation]
    outputs: dict[str, _Notation]
    dims: dict[str, _Notation]

    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Return the inputs, in order."""
        return tuple(tensor(name, text) for name, text in self.inputs.items())

    def output_specs(self) -> tuple[TensorSpec, ...]:
        """Return the outputs, in order."""
        return tuple(tensor(name, text) for name, text in self.outputs.items())

    def dim_ranges(self) -> dict[str, Dim]:
        """Return the sizes that each named axis may have."""
        return {name: dim(name, text) for name, text in self.dims.items()}


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step that made a variant: the verb, its settings, and one line about what came out."""

    verb: str
    settings: dict[str, Any]
    result: str


class MetricEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a lossy variant was found to be worth; ``proof/<variant>.json`` has all outputs, and the samples.

    Attributes:
        part: Where it has the least room, empty where the task is judged as a whole …
        output: … and for which output.
        metric: By which metric: ``top-1``, ``cosine`` or ``psnr``.
        value: What was found when the bundle was built; larger is better.
        allowance: The least value that passes, on any machine.
        n_samples: By how many samples each output is judged, or more.
        isa: The instruction sets of the processor that found it; another may answer otherwise.
        note: What the user's own metric said, such as ``accuracy 98.9 % -> 98.8 %``; of a whole task, how
            many texts are wholly equal, and the least cosine between what the parts answer.
    """

    part: str
    output: str
    metric: str
    value: float
    allowance: float
    n_samples: Annotated[int, msgspec.Meta(ge=1)]
    isa: list[str]
    note: str = ""


class VariantEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole bundle in one form.

    Attributes:
        graphs: Part -> graph, for every part.
        steps: What was done, in order.
        proven: Whether the comparison with PyTorch passed.
        note: What a user must know, such as why it is not proven.
        metric: For a lossy variant, what its answers are worth; ``None`` if they are exact.
    """

    graphs: dict[str, GraphEntry]
    steps: list[Step]
    proven: bool
    note: str = ""
    metric: MetricEntry | None = None


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the bundle comes from.

    Attributes:
        source: The model, as the user named it.
        command: The command that built it, without paths of the machine.
        packages: Package -> version.
        machine: Processor family, such as ``x86_64``.
        python: Version of Python.
    """

    source: str
    command: str
    packages: dict[str, str]
    machine: str
    python: str


class ModelFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What people want to know about the model; empty text means that nobody said.

    Attributes:
        name: Short name.
        version: Semantic version of the model.
        description: One or more sentences.
        author: Who made it.
        license: SPDX expression.
        created: When the bundle was built, ``2026-11-20T10:00:00Z``.
        trained_at: When it was trained, ``2026-11-20``.
    """

    name: str
    version: str
    description: str = ""
    author: str = ""
    license: str = ""
    created: str = ""
    trained_at: str = ""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a bundle says of itself; ``docs/bundle.md`` specifies it field by field."""

    format: int
    model: ModelFacts
    task: str | None
    settings: dict[str, Any]
    parts: dict[str, PartEntry]
    variants: dict[str, VariantEntry]
    default_variant: str
    provenance: Provenance
    files: list[FileEntry]


def files_outside(manifest: Manifest) -> dict[str, int]:
    """Return the files of a checkpoint that the bundle refers to, and their sizes in bytes."""
    graphs = [graph for variant in manifest.variants.values() for graph in variant.graphs.values()]
    return {shard.file: shard.size_bytes for graph in graphs for shard in graph.shards}


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of ``manifest.json``: the same manifest gives the same bytes.

    Order is kept where it means something (inputs, outputs, settings …); package and operator counts,
    which have none, are sorted.

    Raises:
        BundleError: The manifest is not one that `decode_manifest` would take.
    """
    try:
        tree = msgspec.to_builtins(manifest)
        _check_json(tree)
        _sort(tree["provenance"], "packages")
        for variant in tree["variants"].values():
            for graph in variant["graphs"].values():
                _sort(graph, "operators")
                _drop_external(graph)
        content = msgspec.json.format(msgspec.json.encode(tree), indent=1) + b"\n"
    except (TypeError, ValueError, OverflowError, RecursionError) as err:
        raise BundleError(f"{MANIFEST_NAME} cannot be written: {err}") from err
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{MANIFEST_NAME} would have {len(content)} bytes, at most {MAX_MANIFEST_BYTES} are read"
        )
    decode_manifest(content)
    return content


def _check_json(tree: object) -> None:
    """Refuse what a JSON writer would silently turn into something else: NaN into null, 1 into "1"."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise BundleError(f"{MANIFEST_NAME} cannot be written: JSON has no keys but words")
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise BundleError(f"{MANIFEST_NAME} cannot be written: JSON has no number {value}")


def _sort(tree: dict[str, Any], key: str) -> None:
    tree[key] = dict(sorted(tree[key].items()))


def _drop_external(graph: dict[str, Any]) -> None:
    """Leave out what a graph with weights of its own has nothing to say of: old readers know no such key."""
    if not graph["external"] and not graph["shards"]:
        del graph["external"], graph["shards"]


def decode_manifest(content: bytes, where: str | None = None) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        BundleError: It is no manifest, is of a newer format, or contradicts itself.
    """
    tree = parse_json(content, MANIFEST_NAME, where)
    _check_format(tree, where)
    manifest = convert_tree(tree, Manifest, MANIFEST_NAME, where)
    _check_model(manifest, where)
    _check_files(manifest, where)
    _check_parts(manifest, where)
    _check_variants(manifest, where)
    return manifest


def seal_text(manifest_bytes: bytes) -> bytes:
    r"""Return the bytes of ``SEAL``.

    >>> seal_text(b"{}")[:17]
    b'sha256:44136fa355'
    """
    return f"sha256:{hashlib.sha256(manifest_bytes).hexdigest()}\n".encode()


def decode_sealed(manifest_bytes: bytes, seal_bytes: bytes, where: str) -> Manifest:
    """Read a manifest, after checking it against the seal.

    Raises:
        BundleError: The seal is of other bytes, or `decode_manifest` refuses them.
    """
    if seal_bytes != seal_text(manifest_bytes):
        raise BundleError(
            f"{MANIFEST_NAME} is not the one that was sealed: {SEAL_NAME} holds another digest",
            where=where,
            do="fetch the bundle again, or build it again",
        )
    return decode_manifest(manifest_bytes, where)


def _check_format(tree: object, where: str | None) -> None:
    found = tree.get("format") if isinstance(tree, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise BundleError(f"{MANIFEST_NAME} has no format number", where=where)
    if found > FORMAT:
        raise BundleError(
            f"the bundle has format {found}, this anyport reads format {FORMAT}",
            where=where,
            do="pip install --upgrade anyport",
        )


def is_version(text: str) -> bool:
    """Say whether a text is a semantic version.

    >>> is_version("1.0.0-rc.1+cpu"), is_version("01.2.3"), is_version("1.0")
    (True, False, False)
    """
    return _VERSION.fullmatch(text) is not None


def _check_model(manifest: Manifest, where: str | None) -> None:
    if not manifest.model.name:
        raise BundleError(f"{MANIFEST_NAME}: the model has no name", where=where)
    if not is_version(manifest.model.version):
        raise BundleError(
            f"{MANIFEST_NAME}: {shown(manifest.model.version)} is no semantic version",
            where=where,
            do="write it as 1.0.0",
        )


def _check_files(manifest: Manifest, where: str | None) -> None:
    paths = [entry.path for entry in manifest.files]
    check_paths([*paths, MANIFEST_NAME, SEAL_NAME], where)
    if paths != sorted(paths):
        raise BundleError(f"{MANIFEST_NAME}: the files are not sorted by path", where=where)


def _check_parts(manifest: Manifest, where: str | None) -> None:
    if not manifest.parts:
        raise BundleError(f"{MANIFEST_NAME}: there are no parts", where=where)
    check_names("part", manifest.parts, where)
    for name, part in manifest.parts.items():
        try:
            part.input_specs()
            part.output_specs()
            part.dim_ranges()
        except UsageError as err:
            raise BundleError(f"{MANIFEST_NAME}: {err.what}", where=f"part {name}", do=err.do) from err


def _check_variants(manifest: Manifest, where: str | None) -> None:
    check_names("variant", manifest.variants, where)
    if manifest.default_variant not in manifest.variants:
        raise BundleError(
            f"{MANIFEST_NAME}: the default variant {shown(manifest.default_variant)} is none of its variants"
            f"{did_you_mean(manifest.default_variant[:100], manifest.variants)}",
            where=where,
        )
    listed = {entry.path for entry in manifest.files}
    for name, variant in manifest.variants.items():
        if set(variant.graphs) != set(manifest.parts):
            raise BundleError(
                f"{MANIFEST_NAME}: variant {name} has graphs for {_listed(variant.graphs)}, "
                f"the parts are {_listed(manifest.parts)}",
                where=where,
            )
        for part, graph in variant.graphs.items():
            _check_graph(graph, part, listed, f"part {part}, variant {name}")
        if variant.metric is not None:
            _check_lossy(name, manifest, listed, where)


def _check_lossy(name: str, manifest: Manifest, listed: set[str], where: str | None) -> None:
    metric = manifest.variants[name].metric
    if name.lower() in EXACT_PROOF_NAMES:
        raise BundleError(
            f"{MANIFEST_NAME}: a lossy variant cannot be called {shown(name)}, as the exact proof is",
            where=where,
        )
    if metric is not None and not metric.output:
        raise BundleError(f"{MANIFEST_NAME}: the metric of variant {name} names no output", where=where)
    if metric is not None and not metric.part and manifest.task is None:
        raise BundleError(
            f"{MANIFEST_NAME}: the metric of variant {name} is of the whole task, and there is none",
            where=where,
        )
    if (
        metric is not None
        and metric.part
        and metric.output not in getattr(manifest.parts.get(metric.part), "outputs", ())
    ):
        raise BundleError(
            f"{MANIFEST_NAME}: the metric of variant {name} is of output {shown(metric.output)} of part "
            f"{shown(metric.part)}, which is not there",
            where=where,
        )
    for path in lossy_files(name):
        if path not in listed:
            raise BundleError(
                f"{MANIFEST_NAME}: variant {name} is lossy, and {shown(path)} is not among its files",
                where=where,
            )


def lossy_files(variant: str) -> tuple[str, str]:
    """Return where the proof of a lossy variant lies: what it says, and its arrays.

    >>> lossy_files("int8")
    ('proof/int8.json', 'proof/int8.safetensors')
    """
    return f"proof/{variant}.json", f"proof/{variant}.safetensors"


def _listed(names: dict[str, Any]) -> str:
    return ", ".join(shown(name) for name in sorted(names)) or "none"


def _check_graph(graph: GraphEntry, part: str, listed: set[str], where: str) -> None:
    if not graph.file.startswith(f"parts/{part}/"):
        raise BundleError(
            f"{MANIFEST_NAME}: the graph {shown(graph.file)} is not below parts/{part}/", where=where
        )
    _check_external(graph, where)
    folder = graph.file.rpartition("/")[0]
    for path in (graph.file, graph.weights, graph.modules):
        if path is None:
            continue
        if path.rpartition("/")[0] != folder:  # a runtime opens external data in and below this folder only
            raise BundleError(
                f"{MANIFEST_NAME}: {shown(path)} is not in the folder of its graph", where=where
            )
        if path not in listed:
            raise BundleError(f"{MANIFEST_NAME}: {shown(path)} is not among its files", where=where)


def _check_external(graph: GraphEntry, where: str) -> None:
    if graph.external != bool(graph.shards) or (graph.external and graph.weights is not None):
        raise BundleError(
            f"{MANIFEST_NAME}: {shown(graph.file)} must have weights inside the bundle, or be external and "
            "name the files of its weights",
            where=where,
        )
    check_paths([shard.file for shard in graph.shards], where)
