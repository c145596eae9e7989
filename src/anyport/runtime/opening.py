"""The table of runtimes, and the one way to open a graph on any of them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from anyport.errors import UsageError, did_you_mean
from anyport.runtime.options import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.bundle.reading import GraphFile
    from anyport.runtime.session import Session


class Runtime(Protocol):
    """What the module of a runtime offers."""

    def open_sessions(self, graphs: Sequence[Path | GraphFile], options: SessionOptions) -> list[Session]:
        """Open graphs; a memory limit holds for all of them together."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a runtime lives, and the extra that installs what it needs; ``None`` is the base install."""

    module: str
    extra: str | None


RUNTIMES: Final[Mapping[str, Entry]] = {  # sorted; nothing is imported before it is asked for
    "onnxruntime": Entry("anyport.runtime.onnxrt", extra=None),
}


def open_session(
    graph: Path | GraphFile, options: SessionOptions | None = None, runtime: str = "onnxruntime"
) -> Session:
    """Open a graph on a runtime.

    Example::

        with open_bundle("digits.port") as bundle:
            session = open_session(bundle.graph_file("network"), SessionOptions(n_threads=1))
            logits = session.run({"pixel_values": pixel_values})["logits"]

    Args:
        graph: A plain .onnx file, or a part of an open bundle. A bundle's graph knows the sizes that its
            axes may have, and checks them at every run.
        options: How; the defaults of `SessionOptions` if absent.
        runtime: One of `RUNTIMES`.

    Raises:
        UsageError: There is no such runtime.
        SessionError: The runtime cannot open the graph in this way.
    """
    return open_sessions([graph], options, runtime)[0]


def open_sessions(
    graphs: Sequence[Path | GraphFile], options: SessionOptions | None = None, runtime: str = "onnxruntime"
) -> list[Session]:
    """Open several graphs on a runtime: a memory limit of the options holds for all of them together.

    Example::

        with open_bundle("blip.port") as bundle:
            graphs = [bundle.graph_file(part) for part in bundle.manifest.parts]
            sessions = open_sessions(graphs, SessionOptions(memory_limit_bytes=2 * 10**9))

    Args:
        graphs: As for `open_session`.
        options: Of each; the defaults of `SessionOptions` if absent.
        runtime: One of `RUNTIMES`.

    Returns:
        One for each graph, in their order.

    Raises:
        UsageError: There is no such runtime.
        SessionError: The runtime cannot open a graph in this way; none is open then.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"there is no runtime '{runtime}'{did_you_mean(runtime, RUNTIMES)}")
    for graph in graphs:
        _check_runtime(graph, runtime)
    module = cast("Runtime", import_module(RUNTIMES[runtime].module))
    return module.open_sessions(graphs, options or SessionOptions())


def _check_runtime(graph: Path | GraphFile, runtime: str) -> None:
    if not isinstance(graph, Path) and graph.entry.runtime not in {None, runtime}:
        raise UsageError(
            f"the graph of part '{graph.part_name}' is for {graph.entry.runtime} alone, "
            f"in variant '{graph.variant_name}'",
            do="choose another --variant; `anyport inspect` lists them",
        )
