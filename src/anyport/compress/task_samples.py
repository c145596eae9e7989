"""The user's pictures as samples of a whole task, and what one part is fed while the task runs on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from anyport.compress.methods import needs_samples
from anyport.compress.samples import N_CALIBRATION, PictureSamples, Share, split
from anyport.task.picture_settings import fit_picture
from anyport.task.pictures import read_picture
from anyport.task.trials import PICTURE, picture_spec, texts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    import numpy as np

    from anyport.compress.methods import Method
    from anyport.compress.samples import Samples
    from anyport.runtime import Session
    from anyport.task.picture_settings import PictureSettings
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
        turns: Place -> which of the texts begin there. They are counted among the samples that judge, and
            among those that set ranges: counted over all, every second picture would have the same texts.
        trial: Of the exact graphs.
    """

    name: str
    pictures: TaskPictures
    places: tuple[int, ...]
    turns: Mapping[int, int]
    trial: Trial
    _written: dict[int, Mapping[str, np.ndarray]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Go over them."""
        for place in self.places:
            yield self._sample(place)

    def margin(self, place: int) -> float:
        """Return how clear the exact model's choices on a picture are; see `Trial.margin`."""
        return self.trial.margin(self._sample(place))

    def file(self, number: int) -> Path:
        """Return the picture of a sample, counted from 0."""
        return self.pictures.paths[self.places[number]]

    def spread(self, n_samples: int) -> TaskSamples:
        """Return so many of them, evenly spread over the texts, and over the pictures of each text."""
        if n_samples >= len(self):
            return self
        n_texts = max(1, len(self.pictures.texts))
        by_text = sorted(self.places, key=lambda place: (self.turns[place] % n_texts, place))
        places = sorted(by_text[(2 * i + 1) * len(by_text) // (2 * n_samples)] for i in range(n_samples))
        return replace(self, places=tuple(places))

    def _sample(self, place: int) -> dict[str, np.ndarray]:
        path, settings = self.pictures.paths[place], self.trial.settings
        pixels = fit_picture(read_picture(path), settings, str(path))
        if place in self._written:
            return {PICTURE: pixels[None], **self._written[place]}
        given, n_texts = self.pictures.texts, self.pictures.n_texts
        texts = texts_of(given, self.turns[place], n_texts) if n_texts else []
        feeds = self.trial.prepare(pixels, texts)
        self._written[place] = {name: array for name, array in feeds.items() if name != PICTURE}
        return feeds


def divide_pictures(
    pictures: TaskPictures, trial: Trial, methods: Iterable[Method]
) -> tuple[TaskSamples | None, TaskSamples]:
    """Split pictures into those that set ranges and those, others, that judge; without ranges, all judge."""
    everything = range(len(pictures.paths))
    whole = TaskSamples(pictures.name, pictures, tuple(everything), {i: i for i in everything}, trial)
    first, second = (_some(whole, share) for share in _shares(whole, methods))
    return (first if len(first) else None), second


def check_pictures(pictures: TaskPictures, settings: PictureSettings, methods: Iterable[Method]) -> None:
    """Read every picture that `divide_pictures` would use.

    Raises:
        InputError: Naming the first that cannot be read, or is too large.
    """
    whole = PictureSamples(pictures.name, pictures.paths, picture_spec(settings), settings)
    for share in _shares(whole, methods):
        for place in sorted(share.places) if isinstance(share, Share) else ():
            fit_picture(read_picture(pictures.paths[place]), settings, str(pictures.paths[place]))


def _shares(whole: Samples, methods: Iterable[Method]) -> tuple[Samples, Samples]:
    return split(whole, N_CALIBRATION if needs_samples(methods) else 0)


@dataclass(frozen=True, slots=True)
class ClearSamples:
    """Samples whose answers no rounding exchanges.

    Attributes:
        calibration: As many as before; ``None`` if there were none.
        judging: Their choices are clear; fewer than before where there were no clear ones to exchange for.
        n_unclear: How many pictures do not judge, because the exact model's two best choices are too close.
    """

    calibration: TaskSamples | None
    judging: TaskSamples
    n_unclear: int


def keep_clear(calibration: TaskSamples | None, judging: TaskSamples, least: float) -> ClearSamples:
    """Have only samples judge whose best two choices are clearly apart; the others may set ranges.

    Args:
        calibration: A clear sample of these takes the place of an unclear one that should judge.
        judging: Each is computed once more, by the exact graphs.
        least: The margin that is needed (`anyport.task.trials.Trial.margin`).
    """
    if calibration is not None:  # a picture that is exchanged keeps its texts
        judging = replace(judging, turns={**calibration.turns, **judging.turns})
    unclear = [place for place in judging.places if judging.margin(place) < least]
    spare = list(calibration.places) if calibration is not None else []
    exchanged: dict[int, int] = {}
    n_unclear = len(unclear)
    for place in spare:
        if len(exchanged) == len(unclear):
            break
        if judging.margin(place) < least:
            n_unclear += 1
        else:
            exchanged[place] = unclear[len(exchanged)]
    clear = (set(judging.places) - set(unclear)) | set(exchanged)
    name = f"{judging.name}, {n_unclear} left out" if n_unclear else judging.name
    if calibration is not None:
        places = tuple(sorted(exchanged.get(place, place) for place in spare))
        calibration = replace(calibration, places=places, turns=judging.turns)
    return ClearSamples(calibration, replace(judging, name=name, places=tuple(sorted(clear))), n_unclear)


def _some(whole: TaskSamples, share: Samples) -> TaskSamples:
    places = tuple(sorted(share.places)) if isinstance(share, Share) else whole.places
    turns = {place: turn for turn, place in enumerate(places)}
    return replace(whole, name=share.name, places=places, turns=turns)


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

    def file(self, number: int) -> Path:
        """Return the picture that the task ran on, counted from 0."""
        return self.samples.file(number)

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
