"""The child process: it opens one candidate, runs it, and says how long that took and what memory it needed.

A process of its own, because memory is given back to the system late or never, and because the first opening
of a graph must not find what an earlier one has warmed. An order comes in on standard input, an answer goes
out as the last line of standard output, both JSON.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from anyport.bench.blank import Blank
from anyport.bench.memory import mark_memory, peak_since
from anyport.bundle import GraphEntry, GraphFile, PartEntry
from anyport.cases import Case, Fill
from anyport.errors import AnyportError
from anyport.runtime import RUNTIMES, SessionOptions, open_session
from anyport.tensors import tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyport.runtime import Session

Subject = dict[str, Any]


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a child is to measure.

    Attributes:
        subject: What to open, in the words of the module that opens it.
        n_threads: With how many threads.
        inputs: Name -> notation.
        sizes: Of the named axes.
        fills: How each input is made.
    """

    subject: Subject
    n_threads: int
    inputs: dict[str, str]
    sizes: dict[str, int]
    fills: dict[str, Fill]


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a child found.

    Attributes:
        load_s: From the file to a session that can run, in seconds of wall time.
        peak_bytes: The most memory above that before opening, over opening and one run.
        why: Why a number is absent.
    """

    load_s: float | None
    peak_bytes: int | None
    why: str = ""


class GraphSubject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A graph to open: a plain .onnx file, or one of a bundle, in the words of its manifest."""

    path: str
    entry: GraphEntry | None = None
    part: PartEntry | None = None
    part_name: str = ""
    variant_name: str = ""
    weights: str | None = None


def graph_subject(graph: Path | GraphFile, weights: Path | None = None) -> Subject:
    """Return the words for a graph, and for the checkpoint that it may refer to."""
    folder = None if weights is None else str(weights)
    if isinstance(graph, Path):
        words = GraphSubject(str(graph), weights=folder)
    else:
        names = (graph.part_name, graph.variant_name)
        words = GraphSubject(str(graph.path), graph.entry, graph.part, *names, weights=folder)
    subject: Subject = msgspec.to_builtins(words)
    return subject


def open_graph(subject: Subject, n_threads: int) -> Session:
    """Open what `graph_subject` describes."""
    words = msgspec.convert(subject, GraphSubject)
    folder = None if words.weights is None else Path(words.weights)
    options = SessionOptions(n_threads=n_threads, weights_folder=folder)
    if words.entry is None or words.part is None:
        return open_session(Path(words.path), options)
    names = (words.part_name, words.variant_name)
    return open_session(GraphFile(Path(words.path), words.entry, words.part, *names), options)


def main() -> None:
    """Answer one order about a graph."""
    for entry in RUNTIMES.values():
        if entry.extra is None:
            import_module(entry.module)  # imports are not part of opening
    serve(open_graph)


def serve(open_subject: Callable[[Subject, int], Session]) -> None:
    """Read an order, answer it; what the candidate prints goes to standard error."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    with contextlib.redirect_stdout(sys.stderr):
        answer = answer_order(order, open_subject)
    os.write(1, b"\n" + msgspec.json.encode(answer) + b"\n")


def answer_order(order: Order, open_subject: Callable[[Subject, int], Session]) -> Answer:
    """Open the subject and run it once."""
    specs = [tensor(name, notation) for name, notation in order.inputs.items()]
    feeds = Case("bench", "random", order.sizes, order.fills, {}).arrays(specs)
    mark = mark_memory()
    try:
        start_s = time.perf_counter()
        session = open_subject(order.subject, order.n_threads)
        load_s = time.perf_counter() - start_s
        session.run(feeds)
    except AnyportError as err:
        return Answer(None, None, err.what)
    peak_bytes = peak_since(mark)
    session.close()
    if isinstance(peak_bytes, Blank):
        return Answer(load_s, None, peak_bytes.why)
    return Answer(load_s, peak_bytes)
