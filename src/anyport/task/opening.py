"""The table of tasks, and the one way to open a bundle as the task it is made for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from anyport.bundle import open_bundle
from anyport.errors import UsageError, did_you_mean
from anyport.task.graphs import BundleGraphs, FileGraphs
from anyport.task.task import TaskOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

    from anyport.task.graphs import Graphs
    from anyport.task.task import Task
    from anyport.tensors import Signature


class TaskModule(Protocol):
    """What the module of a task offers."""

    Options: type[msgspec.Struct]

    def open_task(self, graphs: Graphs, settings: Mapping[str, Any], options: TaskOptions) -> Task:
        """Open the sessions that the task needs; the task closes ``graphs``."""

    def check_settings(self, settings: Mapping[str, Any], parts: Mapping[str, Signature]) -> None:
        """Raise `UsageError` when the settings do not fit the parts."""


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """Where a task lives, and what it does in one line."""

    module: str
    about: str


TENSORS: Final = "tensors"  # the task of a bundle that names none, and of a plain .onnx file

TASKS: Final[Mapping[str, TaskEntry]] = {  # sorted; nothing is imported before it is asked for
    "answer": TaskEntry("anyport.task.answer", "pictures and questions in, answers out"),
    "caption": TaskEntry("anyport.task.caption", "pictures in, sentences about them out"),
    "classify": TaskEntry("anyport.task.classify", "pictures in, labels and probabilities out"),
    "edit": TaskEntry("anyport.task.edit", "pictures and an instruction in, an edited picture out"),
    "embed": TaskEntry("anyport.task.embed", "pictures and texts in, vectors out"),
    "match": TaskEntry("anyport.task.match", "pictures and texts in, which fit each other out"),
    TENSORS: TaskEntry("anyport.task.tensors", "arrays in, arrays out"),
}


def task_module(name: str) -> TaskModule:
    """Import the module of a task.

    Raises:
        UsageError: There is no such task.
    """
    if name not in TASKS:
        raise UsageError(f"there is no task '{name}'{did_you_mean(name, TASKS)}")
    return cast("TaskModule", import_module(TASKS[name].module))


def module_of(graphs: Graphs) -> TaskModule:
    """Import the module of the task that these graphs are made for."""
    return task_module(graphs.task or TENSORS)


def open_graphs(path: str | Path) -> Graphs:
    """Open a bundle, or a plain .onnx file as a bundle of one part."""
    place = Path(path)
    return FileGraphs(place) if place.suffix == ".onnx" else BundleGraphs(open_bundle(place))


def open_task(
    path: str | Path, options: TaskOptions | None = None, *, weights: str | Path | None = None
) -> Any:  # noqa: ANN401 -- the task decides
    """Open a bundle as the task it is made for.

    Example::

        with anyport.open_task("digits.port") as task:
            print(task.classify(["seven.png"])[0].label)

    Args:
        path: A bundle (folder or zip), or a plain .onnx file: then arrays in, arrays out.
        options: How; the defaults of `TaskOptions` if absent.
        weights: The folder of the checkpoint, for a bundle that was built with ``--weights reference``.

    Returns:
        The task: a `anyport.task.classify.Classifier`, or a `anyport.task.tensors.TensorTask`.

    Raises:
        BundleError: It is no bundle, or a damaged one.
        SessionError: The runtime cannot open it as asked.
        UsageError: The variant, the runtime or the task does not exist.
    """
    options = options or TaskOptions()
    if weights is not None:
        options = replace(options, session=replace(options.session, weights_folder=Path(weights)))
    return task_of(open_graphs(path), options)


def task_of(graphs: Graphs, options: TaskOptions) -> Any:  # noqa: ANN401 -- the task decides
    """Open the task of graphs that are open; they are closed with it, or if it cannot be opened."""
    try:
        return module_of(graphs).open_task(graphs, graphs.settings, options)
    except BaseException:
        graphs.close()
        raise


def check_settings(task: str, settings: Mapping[str, Any], parts: Mapping[str, Signature]) -> None:
    """Check at build time what `open_task` will need at run time.

    Raises:
        UsageError: The task does not exist, or a setting does not fit it or the parts.
    """
    task_module(task).check_settings(settings, parts)
