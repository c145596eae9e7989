"""The task ``tensors``: arrays in, arrays out, for a model without a task and for a plain .onnx file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import msgspec
import numpy as np

from anyport.errors import InputError, UsageError, did_you_mean
from anyport.task.arrays import npz_target, summary, write_arrays
from anyport.task.part_forms import OpenParts
from anyport.task.task import Printout, TaskOptions, settings_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.runtime import Session
    from anyport.task.graphs import Graphs
    from anyport.tensors import Signature

_DO: Final = "anyport run BUNDLE NAME=FILE.npy…, or one FILE.npz"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of ``anyport run`` for this task."""

    output: Annotated[str, msgspec.Meta(description="Write the outputs to this .npz file.")] | None = None
    part: Annotated[str, msgspec.Meta(description="The part to run, where there are several.")] | None = None
    force: Annotated[bool, msgspec.Meta(description="Replace an existing output file.")] = False


class TensorTask:
    """The parts of a bundle as functions of arrays; a context manager. A part opens when it first runs."""

    def __init__(self, graphs: Graphs, options: TaskOptions) -> None:
        self._graphs = graphs
        self._parts = OpenParts(graphs, graphs.parts, options, at_once=False)

    def __enter__(self) -> Self:
        """Return the task itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give back the sessions and the bundle; a second call does nothing."""
        self._parts.close()

    def session(self, part: str | None = None) -> Session:
        """Return the session of a part; of the only part if none is named.

        Raises:
            UsageError: There is no such part, or several and none is named.
        """
        names = list(self._graphs.parts)
        if part is None and len(names) == 1:
            part = names[0]
        if part is None:
            raise UsageError(
                f"the model has {len(names)} parts: {', '.join(names)}", do="name one: --part NAME"
            )
        if part not in names:
            raise UsageError(f"the model has no part '{part}'{did_you_mean(part, names)}")
        return self._parts.session(part)

    def run(self, feeds: Mapping[str, np.ndarray], part: str | None = None) -> dict[str, np.ndarray]:
        """Compute the outputs of a part.

        Raises:
            InputError: A name, type or shape does not fit.
            SessionError: The runtime failed.
            UsageError: There is no such part, or several and none is named.
        """
        return self.session(part).run(feeds)

    def answer(self, words: Sequence[str], options: Mapping[str, Any]) -> Printout:
        """Run on the files that a command line names; see `anyport.task.task.Task`."""
        chosen = settings_from(options, Options, "options of the task 'tensors'")
        target = None if chosen.output is None else npz_target(chosen.output, force=chosen.force)
        outputs = self.run(read_feeds(words), chosen.part)
        record: dict[str, Any] = {name: summary(array) for name, array in outputs.items()}
        width = max(map(len, outputs))
        lines = [f"  {name:<{width}}   {facts['text']}" for name, facts in record.items()]
        if target is not None:
            write_arrays(target, outputs, force=chosen.force)
            lines.append(f"  written to {target}")
        return Printout(
            tuple(lines),
            {"task": "tensors", "outputs": record, "file": None if target is None else str(target)},
        )


def open_task(graphs: Graphs, settings: Mapping[str, Any], options: TaskOptions) -> TensorTask:
    """Open a bundle; its graphs are opened when they run."""
    check_settings(settings, {})
    return TensorTask(graphs, options)


def check_settings(settings: Mapping[str, Any], parts: Mapping[str, Signature]) -> None:  # noqa: ARG001
    """Refuse settings: the task has none.

    Raises:
        UsageError: There are any.
    """
    if settings:
        raise UsageError(
            f"a model without a task has no settings, but there is '{next(iter(settings))}'",
            do="""name the task under [model], such as task = "classify", or leave [settings] out""",
        )


def read_feeds(words: Sequence[str]) -> dict[str, np.ndarray]:
    """Read ``name=file.npy`` words, or the arrays of one ``.npz``.

    Raises:
        UsageError: A word is neither.
        InputError: A file is missing, damaged, or holds Python objects.
    """
    if len(words) == 1 and words[0].endswith(".npz"):
        return _read(Path(words[0]))
    feeds: dict[str, np.ndarray] = {}
    for word in words:
        name, _, file = word.rpartition("=")
        if not name or not file.endswith(".npy"):
            raise UsageError(f"'{word}' is no input", do=_DO)
        if name in feeds:
            raise UsageError(f"input '{name}' is given twice", do=_DO)
        feeds[name] = _read(Path(file))[""]
    return feeds


def _read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz by name, or the array of an .npy under the empty name."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)  # noqa: TID251 -- the user's own arrays, never pickles
            return {"": found} if isinstance(found, np.ndarray) else dict(found)
    except (EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile) as err:
        raise InputError(f"{path} cannot be read as arrays: {err}", do="write it with numpy.save") from err
