"""One simplifier on one graph: run it in isolation, check what it wrote, store that like any graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgspec

from anyport.bundle.disk import size_text
from anyport.errors import AnyportError, ExportError
from anyport.graph.isolation import Limits, run_limited
from anyport.graph.layout import layout_of, store_in, write_wide
from anyport.graph.narrow import is_narrow
from anyport.graph.rewriting import (
    external_names,
    fingerprint,
    hollow_out,
    load_graph,
    read_rewritten,
    restore,
    value_names,
    weight_names,
    weights_bytes,
)
from anyport.graph.simplification import Attempt
from anyport.graph.simplifiers import ORIGINAL
from anyport.graph.storing import count_operators, weights_name, write_model
from anyport.runtime.onnxfile import weights_size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from anyport.graph.simplification import AttemptStatus
    from anyport.graph.simplifiers import Simplifier

_MEMORY_FACTOR: Final = 8  # of the model: what onnxsim and onnxslim took of a 346 MB ViT
_MEMORY_FREE_BYTES: Final = 1 << 30  # interpreter and libraries
_WRITTEN: Final = "written.onnx"


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """What tools are given.

    Attributes:
        memory_limit_bytes: Of one tool; by default 8 times the model and 1 GiB.
        timeout_s: Of one tool.
        hollow_from_bytes: Models with this much of weights are given away without them.
    """

    memory_limit_bytes: int | None = None
    timeout_s: float = 600.0
    hollow_from_bytes: int = 500_000_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A graph that may be kept.

    Attributes:
        attempt: What is known of it so far.
        path: The file; ``None`` if nothing came of the attempt.
        operators: Operator -> number of nodes.
    """

    attempt: Attempt
    path: Path | None = None
    operators: Mapping[str, int] | None = None


class Subject:
    """The graph that tools are tried on, and the folder they work in.

    Args:
        path: The .onnx file; it is only read.
        folder: Empty; what is kept lies in a folder of its own in it.
        name: What the file will be called: the weights beside it are named after it, and it names them.
        settings: What tools are given.
    """

    def __init__(self, path: Path, folder: Path, name: str, settings: TrialSettings) -> None:
        self._path = path
        self._folder = folder
        self._name = name
        self._settings = settings
        self._model = load_graph(path)
        self._operators = count_operators(self._model)
        self._bytes = path.stat().st_size
        if external_names(self._model):
            self._bytes += weights_bytes(self._model)
        self._known_names = _module_map_names(path) & value_names(self._model)
        self._weight_names = weight_names(self._model)
        self._fingerprint = fingerprint(self._model)
        self._source: tuple[Path, frozenset[str]] | None = None

    @property
    def original(self) -> Candidate:
        """The graph as it is."""
        attempt = replace(self._blank(ORIGINAL, ""), status="equal", n_nodes_after=self._n_nodes)
        size_bytes = weights_size(self._path)
        return Candidate(self._described(attempt, self._model, size_bytes), self._path, self._operators)

    @property
    def _n_nodes(self) -> int:
        return sum(self._operators.values())

    def _blank(self, name: str, version: str) -> Attempt:
        return Attempt(
            name,
            version,
            "failed",
            self._n_nodes,
            n_names_before=len(self._known_names) or None,
            n_weights_before=len(self._weight_names),
        )

    def attempt(self, tool: Simplifier) -> Candidate:
        """Run a tool.

        Returns:
            A candidate with the status ``equal``, still to be compared, or one without a file.

        Raises:
            ExportError: The tool changed the graph that it was given to read.
        """
        version = tool.version
        blank = self._blank(tool.name, version or "")
        if version is None:
            return _nothing(blank, "not installed: pip install 'anyport[optimize]'", "skipped")
        folder = self._folder / tool.name
        folder.mkdir()
        source, hollowed = self._given_away()
        before = _stamp(self._path)
        words = (tool.name, str(source), str(folder / _WRITTEN))
        ending = run_limited(tool.program, words, self._limits(), folder)
        if _stamp(self._path) != before:
            raise ExportError(f"'{tool.name}' wrote into {self._path.name}, which it was given to read")
        if ending.problem:
            return _nothing(blank, ending.problem)
        return self._taken_back(folder, blank, hollowed)

    def _given_away(self) -> tuple[Path, frozenset[str]]:
        """Return the file that tools read, in float32, and the weights that are not in it."""
        if self._source is None:
            self._source = (self._path.resolve(), frozenset())
            if self._bytes >= self._settings.hollow_from_bytes:
                model, source = load_graph(self._path), self._folder.resolve() / "hollow.onnx"
                self._source = (source, hollow_out(model))
                write_model(model, source)
            elif is_narrow(self._model):
                self._source = (self._folder.resolve() / "wide.onnx", frozenset())
                write_wide(self._path, self._source[0])
        return self._source

    def _limits(self) -> Limits:
        limit = self._settings.memory_limit_bytes
        default = _MEMORY_FACTOR * self._bytes + _MEMORY_FREE_BYTES
        return Limits(default if limit is None else limit, self._settings.timeout_s)

    def _taken_back(self, folder: Path, attempt: Attempt, hollowed: frozenset[str]) -> Candidate:
        """Read, check and store what a tool wrote; it may be anything."""
        written, path = folder / _WRITTEN, folder / self._name
        try:
            model = read_rewritten(written, self._bytes)
            attempt = replace(attempt, status="refused")
            restore(model, self._model, hollowed)
            if fingerprint(model) == self._fingerprint:
                return Candidate(replace(attempt, status="unchanged", n_nodes_after=self._n_nodes))
            operators = count_operators(model)
            store_like(self._model, model, path)
        except AnyportError as err:
            return _nothing(attempt, err.what, attempt.status)
        except Exception as err:  # noqa: BLE001  (any reader may stumble over it: the attempt fails, not the build)
            said = f"what it wrote cannot be used: {type(err).__name__}: {err}".splitlines()[0]
            return _nothing(attempt, said)
        finally:
            written.unlink(missing_ok=True)
        reason = f"{size_text(self._bytes)} of weights stayed outside" if hollowed else ""
        attempt = replace(attempt, status="equal", n_nodes_after=sum(operators.values()), reason=reason)
        return Candidate(self._described(attempt, model, _size_of(path)), path, operators)

    def _described(self, attempt: Attempt, model: ir.Model, size_bytes: int) -> Attempt:
        """Count what of the original is still there under its name."""
        n_names = len(self._known_names & value_names(model)) if self._known_names else None
        n_weights = len(self._weight_names & frozenset(model.graph.initializers))
        return replace(attempt, size_bytes=size_bytes, n_names_after=n_names, n_weights_after=n_weights)


def store_like(original: ir.Model, model: ir.Model, path: Path) -> None:
    """Write a graph in the layout of another.

    Raises:
        ExportError: The file is not valid ONNX.
    """
    store_in(layout_of(original), model, path, with_shapes=model is not original)


def _nothing(attempt: Attempt, reason: str, status: AttemptStatus = "failed") -> Candidate:
    return Candidate(replace(attempt, status=status, reason=reason))


def _module_map_names(path: Path) -> frozenset[str]:
    """Return the value names of the module map beside a graph; there may be none."""
    modules = path.with_name("modules.json")
    if not modules.is_file():
        return frozenset()
    return frozenset(msgspec.json.decode(modules.read_bytes()).get("values", {}))


def _size_of(path: Path) -> int:
    weights = path.with_name(weights_name(path))
    return path.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
