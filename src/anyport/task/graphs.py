"""The graphs that a task runs: those of a bundle, or one plain .onnx file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from anyport.errors import UsageError
from anyport.runtime import open_session
from anyport.runtime.signature import signature_of_part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyport.bundle import Bundle
    from anyport.bundle.reading import GraphFile
    from anyport.runtime import Session
    from anyport.task.task import TaskOptions
    from anyport.tensors import Signature


class Graphs(Protocol):
    """Parts that can be opened, and the words of the bundle around them."""

    @property
    def path(self) -> Path:
        """The bundle or file as the user named it."""

    @property
    def task(self) -> str | None:
        """The task it is made for."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the task."""

    @property
    def parts(self) -> Mapping[str, Signature | None]:
        """What goes into each part and comes out; ``None`` when only a session can tell."""

    def open(self, part: str, options: TaskOptions) -> Session:
        """Open one part."""

    def read_bytes(self, relative: str) -> bytes:
        """Return the content of a file that lies beside the graphs, such as ``assets/tokenizer.json``."""

    def close(self) -> None:
        """Close the bundle."""


class BundleGraphs:
    """The graphs of a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.path = Path(bundle.path)
        self.task: str | None = bundle.manifest.task
        self.settings: Mapping[str, Any] = bundle.manifest.settings
        self.parts: Mapping[str, Signature | None] = {
            name: signature_of_part(part) for name, part in bundle.manifest.parts.items()
        }

    def open(self, part: str, options: TaskOptions) -> Session:
        """Open one part of the variant that was asked for."""
        return open_session(self.graph(part, options), options.session, options.runtime)

    def graph(self, part: str, options: TaskOptions) -> GraphFile:
        """Return what opens as one part of the variant that was asked for."""
        return self._bundle.graph_file(part, options.variant)

    def read_bytes(self, relative: str) -> bytes:
        """Return the content of a file of the bundle: the very bytes that were sealed."""
        return self._bundle.read_bytes(relative)

    def close(self) -> None:
        """Close the bundle."""
        self._bundle.close()


class FileGraphs:
    """One .onnx file: a part called ``network``, and no words around it."""

    task = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: Mapping[str, Any] = {}
        self.parts: Mapping[str, Signature | None] = {"network": None}

    def open(self, part: str, options: TaskOptions) -> Session:
        """Open the file; it has no other part and no variants."""
        return open_session(self.graph(part, options), options.session, options.runtime)

    def graph(self, part: str, options: TaskOptions) -> Path:
        """Return the file; it has no other part and no variants."""
        if options.variant is not None:
            raise UsageError(f"{self.path} is a plain .onnx file: it has no variant '{options.variant}'")
        if part not in self.parts:
            raise UsageError(f"{self.path} is a plain .onnx file: it has no part '{part}'")
        return self.path

    def read_bytes(self, relative: str) -> bytes:
        """Refuse: there is nothing beside the file."""
        raise UsageError(f"{self.path} is a plain .onnx file: it has no file '{relative}'")

    def close(self) -> None:
        """There is nothing to close."""


@dataclass(frozen=True, slots=True)
class OpenGraphs:
    """Sessions that are open, in the place of a bundle (see `Graphs`).

    Attributes:
        task: The task.
        settings: Of the task.
        parts: What goes into each part and comes out.
        sessions: By part; they stay the caller's to close.
        read: Gives the content of a file of the bundle.
        path: What messages call the bundle.
    """

    task: str | None
    settings: Mapping[str, Any]
    parts: Mapping[str, Signature | None]
    sessions: Mapping[str, Session]
    read: Callable[[str], bytes]
    path: Path = Path("model")

    def open(self, part: str, options: TaskOptions) -> Session:  # noqa: ARG002 -- they are open
        """Return the session of a part."""
        return self.sessions[part]

    def read_bytes(self, relative: str) -> bytes:
        """Return the content of a file."""
        return self.read(relative)

    def close(self) -> None:
        """Do nothing."""
