"""`Part`, one feed-forward network of a model, and what a recipe yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from torch import nn

    from anyport.recipe.adapters import Adapter
    from anyport.task.rehearsals import TaskAnswer, TaskRequest
    from anyport.tensors import Signature


@dataclass(frozen=True, slots=True)
class Part:
    """One network: it becomes one graph.

    Attributes:
        name: Lower case, such as ``vision_encoder``.
        module: In eval mode; anyport never writes to it.
        signature: Its named inputs and outputs. An input's name is a parameter of ``forward``, or, if no
            name is, the inputs are given by position. An output's name is a key of what ``forward``
            returns, or stands for a tensor of a tuple by position.
        arguments: Other arguments of ``forward``, fixed for good in the graph.
        outputs_in_order: The outputs are named by position, whatever ``forward`` calls them: for graphs of
            other exporters, which name them as they like.
        given: The user's own cases, made anew at each call: input name -> array.
        cures: What the module does otherwise than the model it was taken from, one line each.
        max_case_bytes: The inputs of a planned case take at most this much, where a build would allow more:
            the memory of attention grows with the square of its tokens.
    """

    name: str
    module: nn.Module
    signature: Signature
    arguments: Mapping[str, Any] = field(default_factory=dict)
    outputs_in_order: bool = False
    given: Callable[[], Iterable[Mapping[str, np.ndarray]]] | None = None
    cures: tuple[str, ...] = ()
    max_case_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model taken apart: its parts, and what the task around them needs.

    Attributes:
        name: What a bundle of it is called unless the user says otherwise.
        source: Where it came from, with no path of this machine.
        parts: The networks.
        task: The task that runs them; ``None`` offers tensors in, tensors out.
        settings: The settings of the task.
        assets: Files that the task reads: path below ``assets/`` -> content.
        task_cases: Requests for the whole task, and what the original program answers them, made anew at each
            call; given the settings, which the user may have changed.
    """

    name: str
    source: str
    parts: tuple[Part, ...]
    task: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    assets: Mapping[str, bytes] = field(default_factory=dict)
    task_cases: Callable[[Mapping[str, Any]], Iterable[tuple[TaskRequest, TaskAnswer]]] | None = None


class Recipe(Protocol):
    """The knowledge of one model family: a module of this room with this function."""

    def load(self, checkpoint: str | Path) -> Model:
        """Load a checkpoint (a folder, or a Hugging Face id) and take it apart."""


@runtime_checkable
class AdaptableRecipe(Recipe, Protocol):
    """A recipe that merges LoRA adapters."""

    def load_adapted(self, checkpoint: str | Path, adapters: Sequence[Adapter]) -> Model:
        """Load a checkpoint, merge adapters into it, one after the other, and take it apart."""
