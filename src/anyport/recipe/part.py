"""`Part`, one feed-forward network of a model, and what a recipe yields."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from anyport.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from torch import nn

    from anyport.recipe.adapters import Adapter
    from anyport.task.rehearsals import TaskAnswer, TaskRequest
    from anyport.tensors import Signature


_SHOWN_WEIGHTS: Final = 5


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """Where the weights of a part lie that was made without them.

    Attributes:
        home: The part's module, or the one inside it or around it that the checkpoint is of; weights are
            known by being the same tensors.
        folder: Of the checkpoint.
        name_of: Name in the checkpoint -> name in ``home``, where they differ.
        adapters: LoRA files that are to be merged into them.
    """

    home: nn.Module
    folder: Path
    name_of: Callable[[str], str] | None = None
    adapters: tuple[Adapter, ...] = ()


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
        blocks: The path of the ``nn.ModuleList`` of its blocks, which run one after the other: a part that no
            memory would hold is proven block by block.
        stored: Where its weights lie, if the module has none; it cannot be run then as it is.
    """

    name: str
    module: nn.Module
    signature: Signature
    arguments: Mapping[str, Any] = field(default_factory=dict)
    outputs_in_order: bool = False
    given: Callable[[], Iterable[Mapping[str, np.ndarray]]] | None = None
    cures: tuple[str, ...] = ()
    max_case_bytes: int | None = None
    blocks: str | None = None
    stored: StoredWeights | None = None


@dataclass(frozen=True, slots=True)
class OtherTask:
    """A task that some of a model's parts can run, beside the model's own.

    Attributes:
        parts: Their names.
        settings: Of that task.
    """

    parts: frozenset[str]
    settings: Mapping[str, Any]


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
        task_requests: The same requests without the answers, which cost nothing.
        whole: What the original program runs, and a build holds; parts are pieces or other forms of it.
        others: Further tasks that it can be built for, by name.
        warnings: What was assumed of the checkpoint, one line each; a build tells it.
        fuses_attention: A build makes a variant with fused attention unless the user says otherwise: for
            networks that see so many tokens that the scores of all pairs do not fit into memory.
    """

    name: str
    source: str
    parts: tuple[Part, ...]
    task: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    assets: Mapping[str, bytes] = field(default_factory=dict)
    task_cases: Callable[[Mapping[str, Any]], Iterable[tuple[TaskRequest, TaskAnswer]]] | None = None
    task_requests: Callable[[], Iterable[TaskRequest]] | None = None
    whole: tuple[nn.Module, ...] = ()
    others: Mapping[str, OtherTask] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    fuses_attention: bool = False

    def built_for(self, task: str | None) -> Model:
        """Return the model with the parts and settings of another of its tasks; itself for any other word."""
        if task is None or task not in self.others:
            return self
        other = self.others[task]
        parts = tuple(part for part in self.parts if part.name in other.parts)
        return replace(self, task=task, parts=parts, settings=other.settings, others={})


class Recipe(Protocol):
    """The knowledge of one model family: a module of this room with these functions."""

    def load(self, checkpoint: str | Path) -> Model:
        """Load a checkpoint (a folder, or a Hugging Face id) and take it apart."""

    def outline(self, checkpoint: str | Path) -> Model:
        """Return what `load` returns, with the modules on torch's meta device: no weight is read.

        Only shapes may be asked of it: its cases (``Part.given``) cannot be made.
        """


@runtime_checkable
class AdaptableRecipe(Recipe, Protocol):
    """A recipe that merges LoRA adapters."""

    def load_adapted(self, checkpoint: str | Path, adapters: Sequence[Adapter]) -> Model:
        """Load a checkpoint, merge adapters into it, one after the other, and take it apart."""


@runtime_checkable
class StreamableRecipe(Recipe, Protocol):
    """A recipe of models that no memory would hold."""

    def load_streamed(self, checkpoint: str | Path, adapters: Sequence[Adapter] = ()) -> Model:
        """Return what `load` returns, with the large parts' weights left where they are (``Part.stored``).

        Adapters are checked and named, and merged by whoever reads the weights.
        """


def check_finite(module: nn.Module, name: str) -> None:
    """Refuse a checkpoint with weights that are NaN or infinite: a build would find it out minutes later.

    Args:
        module: With the weights of the checkpoint; each is read once.
        name: What the message calls the checkpoint.

    Raises:
        SourceError: Naming the weights, and how many of their numbers are wrong.
    """
    wrong = {
        key: f"{int((~weight.isfinite()).sum())} of {weight.numel()}"
        for named in (module.named_parameters(), module.named_buffers())
        for key, weight in named
        if weight.is_floating_point() and not bool(weight.isfinite().all())
    }
    if not wrong:
        return
    shown = ", ".join(f"'{key}' ({wrong[key]})" for key in list(wrong)[:_SHOWN_WEIGHTS])
    more = f" and {len(wrong) - _SHOWN_WEIGHTS} more" if len(wrong) > _SHOWN_WEIGHTS else ""
    noun = "a weight whose numbers are" if len(wrong) == 1 else f"{len(wrong)} weights whose numbers are"
    raise SourceError(
        f"'{name}' has {noun} NaN or infinite: {shown}{more}",
        do="take an earlier checkpoint of the training, or download it again",
    )


def assumption(settings: Mapping[str, Any], published: str) -> str:
    """Return the warning for a checkpoint that does not say how its pictures are prepared.

    Args:
        settings: The picture settings that are assumed.
        published: Whose they are.
    """
    size = settings.get("size") or settings["crop"]
    numbers = "; ".join(
        f"{key} {', '.join(f'{value:.4g}' for value in settings[key])}" for key in ("mean", "std")
    )
    return (
        f"no preprocessor_config.json: pictures are prepared as {published} do: {settings['resample']} to "
        f"{size[0]} x {size[1]}, {numbers}"
    )
