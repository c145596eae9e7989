"""ONNX Runtime.

**What a memory limit bounds** (measured with onnxruntime 1.31.1), for all graphs that are opened together:

* weights that are no pages of a file. Left in their file (``mapped``: prepacking off) they are not counted,
  since the system may drop these pages at any time, but for weights inside the .onnx file, convolution
  kernels (which onnxruntime puts in another order) and float16 (which it casts when it opens the file). The
  casts of bfloat16 happen in every run if constant folding is off, and then count as computing;
* onnxruntime's arena, ``max_mem`` = limit - what is copied outside of it: packed weights, every intermediate
  value, every operator's workspace, every output before it is copied to numpy. onnxruntime asks for memory
  before it takes it, so that a run that does not fit fails without having grown. Packed weights are counted
  but not refused, and then nothing is: hence weights that could fill the arena are refused beforehand.

The arena is one region up to 2 GiB, and few such regions otherwise (a larger request gets its own): the
system gives its pages when they are touched, and freed pieces side by side become one again (BLIP's vision
encoder, base size, 4 pictures: 179 MB instead of 209 MB in a region for each request).

Not bounded: Python, the libraries (about 45 MB), thread stacks, the arrays given and returned, and, while a
file opens, one more copy of its largest tensor, and of all convolution kernels. Other ways were tried and do
less: without ``session.use_env_allocators`` nothing is bounded, and ``RLIMIT_DATA`` stops the whole process,
with file mapped weights counted as if they were heap.

onnxruntime takes the arena that is registered when a session is made, and a later registration replaces it
for later sessions only. Its sessions are the arena's last owners: its memory is free when they are closed.

**Providers.** onnxruntime falls back to the CPU without an error. A session here has the provider that was
asked for, first in its list and with at least one node of the graph, or it does not open.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from anyport.bundle.disk import size_text
from anyport.bundle.paths import shown
from anyport.errors import MemoryLimitError, SessionError, UsageError, did_you_mean
from anyport.runtime.declared import libraries_of
from anyport.runtime.onnxfile import WeightSizes, weight_sizes
from anyport.runtime.shards import folder_of_weights
from anyport.runtime.signature import check_declared, signature_of_part, signature_of_values
from anyport.tensors import check_feeds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from anyport.bundle.reading import GraphFile
    from anyport.runtime.options import SessionOptions
    from anyport.tensors import Signature, TensorSpec

_CPU: Final = "CPUExecutionProvider"
_SUFFIX: Final = "ExecutionProvider"
_LEVELS: Final = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_SILENT: Final = 4  # log severity "fatal": what onnxruntime logs as an error is raised here
_DOUBLING, _EXACT_GROWTH = 0, 1  # arena_extend_strategy: kNextPowerOfTwo, kSameAsRequested
_MAX_REGION_BYTES: Final = (1 << 31) - 1  # these settings are of 31 bits, max_mem is not
_PACKING_PADS: Final = 1 / 16  # rows are filled up to the processor's width
_UNKNOWN_OPERATOR: Final = re.compile(r"error: ([\w.]+):(\w+)\(-?\d+\) is not a registered function/op")
_FULL = re.compile(r"Available memory of \d+ is smaller than requested bytes of (\d+)")
# everything that the native module raises of its own: Fail, InvalidGraph, NoSuchFile …
_NATIVE_ERRORS: Final[tuple[type[Exception], ...]] = (
    RuntimeError,
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)
_FOLDER: Final = "session.model_external_initializers_file_folder_path"
_ARENA_LOCK: Final = Lock()  # the registered arena belongs to the process


class OnnxruntimeSession:
    """A graph on ONNX Runtime."""

    def __init__(self, native_session: ort.InferenceSession, signature: Signature, opening: Opening) -> None:
        self._native: ort.InferenceSession | None = native_session
        self._signature = signature
        self._opening = opening

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` takes."""
        return self._signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` gives."""
        return self._signature.outputs

    @property
    def nodes_by_provider(self) -> dict[str, int]:
        """How many nodes of the graph, as it was rewritten, each execution provider took.

        The providers of the session in their order; empty where this onnxruntime does not tell.

        Raises:
            SessionError: The session is closed.
        """
        if self._native is None:
            raise SessionError("the session is closed", where=self._opening.where)
        return _assigned(self._native)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute every output.

        Raises:
            InputError: A name, type or shape does not fit the inputs.
            SessionError: onnxruntime failed, the memory limit was reached, or the session is closed.
        """
        if self._native is None:
            raise SessionError("the session is closed", where=self._opening.where)
        check_feeds(feeds, self.inputs, self._signature.dims)
        names = [spec.name for spec in self.outputs]
        try:
            arrays = self._native.run(names, dict(feeds))
        except _NATIVE_ERRORS as err:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
            raise self._opening.error("the run", err, f"{self._opening.where}, inputs {shapes}") from err
        return dict(zip(names, arrays, strict=True))

    def close(self) -> None:
        """Give back the memory; a second call does nothing."""
        self._native = None


class Opening:
    """One graph about to be opened: the file, its bundle's words, and how."""

    def __init__(self, graph: Path | GraphFile, options: SessionOptions) -> None:
        self.options = options
        self.weights_folder: Path | None = None
        self.shards = None if isinstance(graph, Path) else graph.entry.shards
        if isinstance(graph, Path):
            self.path, self.where = graph, str(graph)
            self.declared: Signature | None = None
            self.optimization: str = options.optimization or "all"
            return
        self.path = graph.path
        self.where = f"part {graph.part_name}, variant {graph.variant_name}"
        self.declared = signature_of_part(graph.part)
        self.optimization = options.optimization or graph.entry.optimization

    def find_weights(self) -> None:
        """Find the weights of a graph that refers to a checkpoint, and check them.

        Raises:
            SessionError: They are not there, or others.
        """
        self.weights_folder = folder_of_weights(self.path, self.where, self.options, self.shards)

    def native_options(self) -> ort.SessionOptions:
        """Return onnxruntime's own options."""
        if self.optimization not in _LEVELS:
            meant = did_you_mean(self.optimization, _LEVELS)
            raise UsageError(f"there is no optimization '{self.optimization}'{meant}")
        native_options = ort.SessionOptions()
        native_options.log_severity_level = _SILENT
        native_options.graph_optimization_level = _LEVELS[self.optimization]
        if self.options.n_threads is not None:
            native_options.intra_op_num_threads = self.options.n_threads
        if self.options.memory_limit_bytes is not None:
            native_options.enable_mem_pattern = False
            native_options.add_session_config_entry("session.use_env_allocators", "1")
        if self.is_mapped:
            self._map_weights(native_options)
        if self.weights_folder is not None:
            native_options.add_session_config_entry(_FOLDER, str(self.weights_folder))
            native_options.enable_mem_pattern = False  # it plans one buffer for all of them: bad_alloc
            # 60 layers: the search for buffers to use again takes 21 of 25 s, and weights live on in them
            native_options.enable_mem_reuse = False
        native_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        for library in self.options.libraries:
            self._load(library, native_options)
        return native_options

    def _map_weights(self, native_options: ort.SessionOptions) -> None:
        native_options.add_session_config_entry("session.disable_prepacking", "1")
        is_cast = self.sizes().bfloat16_bytes > 0
        if is_cast:
            folding = "optimization.disable_specified_optimizers"
            native_options.add_session_config_entry(folding, "ConstantFolding")
        if self.options.memory_limit_bytes is None:  # else the arena is what keeps it
            native_options.enable_cpu_mem_arena = False
            native_options.enable_mem_pattern = False
            native_options.enable_mem_reuse = not is_cast  # they live on in buffers that nothing fits

    def _load(self, library: Path, native_options: ort.SessionOptions) -> None:
        if not library.is_file():
            raise UsageError(f"there is no library '{library}'", do="give the path of a .so, .dll or .dylib")
        try:
            native_options.register_custom_ops_library(str(library.resolve()))
        except _NATIVE_ERRORS as err:
            said = " ".join(str(err).split())
            raise SessionError(
                f"the library '{library.name}' does not load: {said}", where=self.where
            ) from err

    @property
    def is_mapped(self) -> bool:
        """Whether the weights stay in their file."""
        is_bounded = self.options.memory_limit_bytes is not None or self.weights_folder is not None
        return (self.options.weights or ("mapped" if is_bounded else "copied")) == "mapped"

    def sizes(self) -> WeightSizes:
        """Return how large the weights are, and of what kinds."""
        try:
            return weight_sizes(self.path)
        except ValueError as err:
            raise SessionError(f"{self.path.name} is no whole .onnx file: {err}", where=self.where) from err

    def session(self, provider: str) -> OnnxruntimeSession:
        """Open the file, and check that it is what was asked for."""
        native_session = self._open(provider)
        _assert_provider(native_session, provider, self.where)
        found = signature_of_values(native_session.get_inputs(), native_session.get_outputs())
        if self.declared is not None:
            check_declared(self.declared, found, self.where)
        return OnnxruntimeSession(native_session, self.declared or found, self)

    def _open(self, provider: str) -> ort.InferenceSession:
        try:
            return ort.InferenceSession(
                self.path, self.native_options(), providers=[provider], enable_fallback=False
            )
        except _NATIVE_ERRORS as err:
            raise self.error("opening the graph", err, self.where) from err

    def error(self, step: str, err: Exception, where: str) -> SessionError:
        """Say what onnxruntime reported in the words of this package."""
        full = _FULL.search(str(err))
        limit = self.options.memory_limit_bytes
        if full is not None and limit is not None:
            return MemoryLimitError(
                f"{step} needs more than the memory limit of {size_text(limit)}: "
                f"{size_text(int(full[1]))} more were asked for",
                where=where,
                do="raise the memory limit, or give fewer or smaller inputs at a time",
            )
        if "bad_alloc" in str(err) or "Failed to allocate memory" in str(err):
            return SessionError(f"{step} failed: the machine has no memory left", where=where)
        foreign = _UNKNOWN_OPERATOR.search(str(err))
        if foreign is not None:
            return self._without_library(foreign[1], foreign[2], where)
        said = " ".join(str(err).split())
        return SessionError(f"{step} failed: {said}", where=where)

    def _without_library(self, domain: str, operator: str, where: str) -> SessionError:
        """Name the library that an operator is in, if the file does."""
        library = libraries_of(self.path).get(domain)
        what = f"the graph uses the operator {domain}::{operator}, "
        if self.options.libraries:
            names = ", ".join(path.name for path in self.options.libraries)
            what += f"which is not in {names}"
        else:
            what += "which is not ONNX's own, and no library was given"
        wanted = f"that of {shown(library)}" if library else "the one that has it"
        do = f"name its library, {wanted}: --library FILE, or SessionOptions(libraries=(Path(FILE),))"
        return SessionError(what, where=where, do=do)


def open_sessions(graphs: Sequence[Path | GraphFile], options: SessionOptions) -> list[OnnxruntimeSession]:
    """Open graphs on ONNX Runtime; a memory limit holds for all of them together.

    Raises:
        UsageError: The provider or the optimization does not exist.
        SessionError: A file does not open, is not what its bundle declares, lacks the provider, or is
            beyond the memory limit.
    """
    openings = [Opening(graph, options) for graph in graphs]
    provider = _provider(options.provider)
    for opening in openings:
        if not opening.path.is_file():
            raise SessionError(f"there is no file {opening.path}")
        opening.find_weights()
    with _arena(openings, options.memory_limit_bytes, provider):
        return [opening.session(provider) for opening in openings]


@contextmanager
def _arena(openings: Sequence[Opening], limit_bytes: int | None, provider: str) -> Iterator[None]:
    """Give the sessions that are opened inside one arena, within the memory limit if there is one."""
    if limit_bytes is None:
        yield
        return
    if provider != _CPU:
        raise UsageError(f"a memory limit bounds the CPU, not {provider}", do="leave one of the two out")
    max_bytes = _arena_bytes(openings, limit_bytes)
    with _ARENA_LOCK:
        _register_arena(max_bytes)
        try:
            yield
        finally:
            _register_arena(None)  # the sessions alone keep the other one alive


def _arena_bytes(openings: Sequence[Opening], limit_bytes: int) -> int:
    """Return what the limit leaves for packed weights and computing."""
    beside, packed = 0, 0
    for opening in openings:
        sizes = opening.sizes()
        own = 0 if opening.is_mapped else sizes.packed_bytes
        beside += sizes.mapped_bytes if opening.is_mapped else sizes.copied_bytes - own
        packed += own + int(own * _PACKING_PADS)
    if beside + packed >= limit_bytes:
        raise MemoryLimitError(
            f"the weights take {size_text(beside + packed)}, the memory limit is {size_text(limit_bytes)}",
            where="; ".join(opening.where for opening in openings),
            do="raise the memory limit, or take a smaller variant",
        )
    return limit_bytes - beside


def _provider(name: str) -> str:
    """Return onnxruntime's name of a provider: ``cuda`` is ``CUDAExecutionProvider``."""
    known: dict[str, str] = {full.removesuffix(_SUFFIX).lower(): full for full in ort.get_all_providers()}
    short = name.removesuffix(_SUFFIX).lower()
    if short not in known:
        raise UsageError(f"onnxruntime has no provider '{name}'{did_you_mean(short, known)}")
    here = ort.get_available_providers()
    if known[short] not in here:
        listed = ", ".join(full.removesuffix(_SUFFIX).lower() for full in here)
        raise SessionError(
            f"the provider '{short}' is not in this onnxruntime {ort.__version__}, which has: {listed}",
            do=f"install a build of onnxruntime that has {known[short]}",
        )
    return known[short]


def _assert_provider(session: ort.InferenceSession, provider: str, where: str) -> None:
    got = session.get_providers()
    if got[0] != provider:
        raise SessionError(f"the session runs on {got[0]}, {provider} was asked for", where=where)
    n_nodes = {} if provider == _CPU else {name: n for name, n in _assigned(session).items() if n}
    if n_nodes and provider not in n_nodes:
        elsewhere = ", ".join(f"{n} on {name}" for name, n in sorted(n_nodes.items()))
        raise SessionError(
            f"{provider} took none of the graph's nodes: {elsewhere}",
            where=where,
            do="leave --provider out, or change the graph until the provider supports it",
        )


def _assigned(session: ort.InferenceSession) -> dict[str, int]:
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    assigned: list[Any] = session.get_provider_graph_assignment_info()
    n_nodes: dict[str, int] = dict.fromkeys(session.get_providers(), 0)
    for entry in assigned:
        n_nodes[entry.ep_name] = n_nodes.get(entry.ep_name, 0) + len(entry.get_nodes())
    return n_nodes


def _register_arena(max_bytes: int | None) -> None:
    """Set the CPU arena that sessions opened from now on share, until the next call."""
    settings = {"arena_extend_strategy": _EXACT_GROWTH}
    if max_bytes is not None:
        settings = {
            "arena_extend_strategy": _DOUBLING,
            "initial_chunk_size_bytes": min(max_bytes, _MAX_REGION_BYTES),
            "max_mem": max_bytes,
            "max_power_of_two_extend_bytes": min(max_bytes, _MAX_REGION_BYTES),
        }
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, native.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(settings))
