"""What INT8 is calibrated and judged on: what each part is fed while training cards are edited by PyTorch.

`[calibrate] samples = "calibrate.py:{part}"` in anyport.toml names one function per part.
"""

import random
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from drawing import render
from edits import KINDS
from families import family
from numpy.typing import NDArray
from PIL import Image
from wording import LANGUAGES, instruction

if TYPE_CHECKING:
    from anyport.runtime import Session
    from anyport.tensors import TensorSpec

HERE: Final = Path(__file__).parent
N_EDITS: Final = 72  # 64 of them travel with a lossy variant, so that it can be judged again anywhere

Feeds = dict[str, NDArray[Any]]


class Recorder:
    """A session that keeps what it is fed: once per edit, the transformer at steps that differ."""

    def __init__(self, session: "Session") -> None:
        self._session, self._draw = session, random.Random(0)
        self.kept: list[Feeds] = []
        self._seen = 0

    @property
    def inputs(self) -> "tuple[TensorSpec, ...]":
        """What the part takes."""
        return self._session.inputs

    @property
    def outputs(self) -> "tuple[TensorSpec, ...]":
        """What the part answers."""
        return self._session.outputs

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the part; of several runs in one edit any may be kept."""
        self._seen += 1
        fed = {name: np.array(array) for name, array in feeds.items()}
        if self._seen == 1:
            self.kept.append(fed)
        elif self._draw.randrange(self._seen) == 0:
            self.kept[-1] = fed
        return self._session.run(feeds)

    def next_edit(self) -> None:
        """Begin another edit."""
        self._seen = 0

    def close(self) -> None:
        """There is nothing to close."""


@cache
def recorded() -> dict[str, list[Feeds]]:
    """Return what each part is fed: part -> one per edit."""
    from anyport.build.description import laid_over
    from anyport.recipe.qwen_edit import load
    from anyport.source import TorchSession
    from anyport.task import TaskOptions
    from anyport.task.graphs import OpenGraphs
    from anyport.task.opening import task_of

    model = load(HERE / "model")
    own = tomllib.loads((HERE / "anyport.toml").read_text(encoding="utf-8"))["settings"]
    sessions = {part.name: Recorder(TorchSession(part)) for part in model.parts}
    signatures = {part.name: part.signature for part in model.parts}
    settings = laid_over(model.settings, own)
    graphs = OpenGraphs(model.task, settings, signatures, sessions, model.assets.__getitem__)
    draw = random.Random("calibrate")
    with task_of(graphs, TaskOptions()) as task:
        for number in range(N_EDITS):
            drawn, kind = family(draw), KINDS[number % len(KINDS)]
            link = draw.choice([link for link in drawn.links if link.kind == kind] or list(drawn.links))
            edit = drawn.edit(link)
            for session in sessions.values():
                session.next_edit()
            words = instruction(draw, edit, LANGUAGES[number % 2])
            task.edit([Image.fromarray(render(edit.before))], words)
    return {name: session.kept for name, session in sessions.items()}


def vision_encoder() -> Iterator[Feeds]:
    """Yield what the vision encoder is fed."""
    yield from recorded()["vision_encoder"]


def text_encoder() -> Iterator[Feeds]:
    """Yield what the text encoder is fed."""
    yield from recorded()["text_encoder"]


def vae_encoder() -> Iterator[Feeds]:
    """Yield what the VAE's encoder is fed."""
    yield from recorded()["vae_encoder"]


def transformer() -> Iterator[Feeds]:
    """Yield what the transformer is fed, one step of each edit."""
    yield from recorded()["transformer"]


def vae_decoder() -> Iterator[Feeds]:
    """Yield what the VAE's decoder is fed."""
    yield from recorded()["vae_decoder"]
