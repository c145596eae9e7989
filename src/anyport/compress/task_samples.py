"""The user's pictures as samples of a whole task, and what one part is fed while the task runs on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from anyport.compress.methods import needs_samples
from anyport.compress.samples import N_CALIBRATION, Share, split
from anyport.task.picture_settings import fit_picture
from anyport.task.pictures import read_picture
from anyport.task.trials import PICTURE, texts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    import numpy as np

    from anyport.compress.methods import Method
    from anyport.compress.samples import Samples
    from anyport.runtime import Session
    from anyport.task.trials import Trial
    from anyport.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class TaskPictures:
    """What a task is judged on.

    Attributes:
        name: What messages call the pictures.
        paths: Of all pictures.
        texts: They are cycled over the pictures; none for a task that looks at pictures alone.
        n_texts: How many the task looks at together with one picture.
    """

    name: str
    paths: tuple[Path, ...]
    texts: tuple[str, ...] = ()
    n_texts: int = 0


@dataclass(frozen=True, slots=True)
class TaskSamples:
    """Some of these pictures as inputs of the task's trial, with the exact text where it writes one.

    A picture is read anew at each pass; what was written about it is kept.

    Attributes:
        name: What messages call them.
        pictures: All that the user gave.
        places: Of those that are meant, in order.
        trial: Of the exact graphs.
    """

    name: str
    pictures: TaskPictures
    places: tuple[int, ...]
    trial: Trial
    _written: dict[int, Mapping[str, np.ndarray]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Go over them."""
        for place in self.places:
            yield self._sample(place)

    def _sample(self, place: int) -> dict[str, np.ndarray]:
        path, settings = self.pictures.paths[place], self.trial.settings
        pixels = fit_picture(read_picture(path), settings, str(path))
        if place in self._written:
            return {PICTURE: pixels[None], **self._written[place]}
        texts = texts_of(self.pictures.texts, place, self.pictures.n_texts) if self.pictures.n_texts else []
        feeds = self.trial.prepare(pixels, texts)
        self._written[place] = {name: array for name, array in feeds.items() if name != PICTURE}
        return feeds


def divide_pictures(
    pictures: TaskPictures, trial: Trial, methods: Iterable[Method]
) -> tuple[TaskSamples | None, TaskSamples]:
    """Split pictures into those that set ranges and those, others, that judge; without ranges, all judge."""
    whole = TaskSamples(pictures.name, pictures, tuple(range(len(pictures.paths))), trial)
    first, second = (
        _some(whole, share) for share in split(whole, N_CALIBRATION if needs_samples(methods) else 0)
    )
    return (first if len(first) else None), second


def _some(whole: TaskSamples, share: Samples) -> TaskSamples:
    places = tuple(sorted(share.places)) if isinstance(share, Share) else whole.places
    return replace(whole, name=share.name, places=places)


class _EnoughError(Exception):
    """The part was fed what was asked for: the rest of the task need not run."""


@dataclass(slots=True)
class Tap:
    """A session that notes one of its runs.

    Attributes:
        session: Who answers; stays the caller's to close.
        stop_at: The run at which the task is stopped, counted from 0; ``None`` lets it come to its end.
        fed: The inputs of the last run.
        n_runs: How many there were.
    """

    session: Session
    stop_at: int | None = None
    fed: dict[str, np.ndarray] = field(default_factory=dict)
    n_runs: int = 0

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` takes."""
        return self.session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` gives."""
        return self.session.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answer, or stop the task."""
        self.fed, self.n_runs = dict(feeds), self.n_runs + 1
        if self.n_runs - 1 == self.stop_at:
            raise _EnoughError
        return self.session.run(feeds)

    def close(self) -> None:
        """Do nothing."""

    def reset(self, stop_at: int | None) -> None:
        """Begin a new sample."""
        self.stop_at, self.n_runs = stop_at, 0


@dataclass(frozen=True, slots=True)
class TappedSamples:
    """What one part is fed while the task runs: one run of each picture, one after the other.

    A part that runs once for a picture gives that run. Of a decoder the first picture gives the first step,
    the second one the second, and so on around: prompts and steps with short and long pasts all count. The
    task runs anew at each pass, with the exact graphs, up to that run.

    Attributes:
        samples: Of the task.
        session: The exact graph of the part.
        trial_with: Opens the trial with another session for this part.
    """

    samples: TaskSamples
    session: Session
    trial_with: Callable[[Session], Trial]

    @property
    def name(self) -> str:
        """What messages call them."""
        return self.samples.name

    def __len__(self) -> int:
        """How many there are."""
        return len(self.samples)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Run the task on each picture."""
        tap = Tap(self.session)
        trial = self.trial_with(tap)
        n_steps = 0
        for place, feeds in enumerate(self.samples):
            tap.reset(place % n_steps if n_steps else None)
            try:
                trial.run(feeds)
            except _EnoughError:
                pass
            else:
                n_steps = n_steps or tap.n_runs
            yield tap.fed
