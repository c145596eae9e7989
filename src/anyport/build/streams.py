"""Weights that stay in their checkpoint: found, held against the modules, and lent to whatever runs these."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyport.build.description import NO_SIMPLIFIER
from anyport.errors import UsageError
from anyport.graph.streamed import StreamSource
from anyport.source import check_against, open_checkpoint, renamed, wanted_weights
from anyport.source.merging import lazy_weights
from anyport.source.streaming import StreamedWeights, weights_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anyport.build.plan import BuildPlan
    from anyport.recipe import Model, Part, StoredWeights
    from anyport.recipe.adapters import Adapter
    from anyport.source.merging import LazyWeight

_BLOBS: Final = "blobs"  # of the Hugging Face cache, whose snapshots are links
REFERABLE: Final = frozenset({"BF16", "F16", "F32"})  # floats; whole numbers are what they are


@dataclass(frozen=True, slots=True)
class Stream:
    """The weights of one part.

    Attributes:
        source: What the graph is made of.
        weights: Name in ``source.home`` -> how it is read.
        adapters: That are merged into them.
    """

    source: StreamSource
    weights: Mapping[str, LazyWeight]
    adapters: tuple[Adapter, ...]

    @property
    def root(self) -> Path:
        """The folder that a reference's files are relative to."""
        return self.source.checkpoint.root

    def inside(self, part: Part) -> dict[str, LazyWeight]:
        """Return how each weight of the part's own module is read."""
        return weights_inside(part.module, self.source.home, self.weights)


def open_streams(model: Model) -> dict[str, Stream]:
    """Return the weights of every part that was made without them.

    Raises:
        SourceError: A checkpoint is not whole, or does not fit its module; weights are named.
    """
    found = {part.name: _open(part.stored) for part in model.parts if part.stored is not None}
    folders = [one.source.checkpoint.root for one in found.values()]
    root = Path(os.path.commonpath(folders)) if folders else None
    return {name: _below(root, one) for name, one in found.items()}


def _open(stored: StoredWeights) -> Stream:
    checkpoint = open_checkpoint(stored.folder)
    if stored.name_of is not None:
        checkpoint = renamed(checkpoint, stored.name_of)
    wanted = check_against(checkpoint, wanted_weights(stored.home))
    weights = lazy_weights(checkpoint, wanted, stored.home, stored.adapters).weights
    merged = {name: one for name, one in weights.items() if one.is_merged}
    return Stream(StreamSource(stored.home, checkpoint, merged), weights, stored.adapters)


def _below(root: Path | None, stream: Stream) -> Stream:
    """Name all files from one folder: a user has one for all parts of a bundle."""
    checkpoint = replace(stream.source.checkpoint, above=root)
    return replace(stream, source=replace(stream.source, checkpoint=checkpoint))


def check_references(model: Model) -> None:
    """Refuse checkpoints that a bundle cannot refer to, before the first export.

    Raises:
        UsageError: Their files lie in several places, or a weight is of a type that no graph refers to.
    """
    streams = open_streams(model)
    folders = [part.stored.folder.absolute() for part in model.parts if part.stored is not None]
    home = Path(os.path.commonpath(folders)).resolve()
    for name, stream in streams.items():
        if not stream.root.is_relative_to(home) and stream.root.name != _BLOBS:
            raise UsageError(
                f"the files of '{home.name}' are links to other places, and a bundle names one folder",
                where=f"{next(iter(stream.source.checkpoint.files)).name} of part {name}",
                do="put the files themselves into one folder, or --weights copy",
            )
        _check_types(name, stream)


def _check_types(part: str, stream: Stream) -> None:
    wrong = {n: one.dtype for n, one in stream.weights.items() if one.dtype not in REFERABLE}
    floats = {n: dtype for n, dtype in wrong.items() if dtype.startswith("F")}
    if floats:
        name = min(floats)
        raise UsageError(
            f"'{name}' is stored in {floats[name]}, and a graph computes in float32",
            where=f"part {part}",
            do="--weights copy converts it",
        )


@contextmanager
def lent_weights(model: Model) -> Iterator[None]:
    """Let PyTorch run the modules of a model; those without weights read each when they need it."""
    homes = {id(one.source.home): one for one in open_streams(model).values()}
    with ExitStack() as stack:
        for one in homes.values():
            stack.enter_context(StreamedWeights(one.source.home, one.weights))
        yield


def check_streaming(plan: BuildPlan) -> None:
    """Refuse what does not go with weights that are never loaded, before anything is.

    Raises:
        UsageError: Something is asked for that does not go with them.
    """
    made, adapters = plan.description.build, plan.request.adapters
    stays = made.weights == "reference"
    table = (
        ("--lora", stays and adapters, "a LoRA is merged into a copy: --weights copy"),
        ("--storage float32", stays and made.storage != "as-is", "a copy can be widened: --weights copy"),
        ("--attention", stays and made.attention, "leave it out: attention is fused in such a graph"),
        ("--simplify", made.simplify != NO_SIMPLIFIER, "leave it out: such a graph is tidied already"),
        ("--compress", made.compress, "build without --weights, on a machine that holds the model"),
        ("--custom-op", made.custom_ops, "build without --weights"),
    )
    for word, is_asked, instead in table if made.weights else ():
        if is_asked:
            raise UsageError(f"{word} does not go with --weights {made.weights}", do=instead)
