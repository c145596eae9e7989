"""A task as one function of arrays: what compression is judged by where a model has several parts.

A *trial* takes a fitted picture, the tokens of texts and, where the task writes, the exact tokens. It answers
with what the task is used for: the token that is chosen at each step, which text fits, the features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

import numpy as np

from anyport.errors import InputError, UsageError
from anyport.task.texts import N_AROUND
from anyport.tensors import dim, tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyport.task.graphs import Graphs
    from anyport.task.picture_settings import PictureSettings
    from anyport.task.texts import TextReader, TextSettings
    from anyport.tensors import Dim, Signature, TensorSpec

MAX_TEXTS: Final = 8  # of one sample
PICTURE: Final = "picture"
TEXTS: Final = "texts"
TOKENS: Final = "tokens"  # those that are chosen
WRITTEN: Final = "written"  # the exact ones


class Trial(Protocol):
    """A task as a `anyport.runtime.Session`: the same feeds give the same answers."""

    @property
    def signature(self) -> Signature:
        """What goes in and comes out, one sample at a time."""

    @property
    def settings(self) -> PictureSettings:
        """How pictures are fitted."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that the task runs: a model may have more."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` gives."""

    def prepare(self, pixels: np.ndarray, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Make a sample; a task that writes does so here, so this is for the exact graphs.

        Args:
            pixels: uint8[height, width, channels], fitted.
            texts: As many as the task looks at together.

        Raises:
            InputError: A text is too long.
        """

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answer a sample.

        Raises:
            InputError: A token is none of the model's.
            SessionError: The runtime failed, or its numbers are not finite.
        """

    def margin(self, feeds: Mapping[str, np.ndarray]) -> float:
        """Return how clear the choices of a sample are: the closest that two best scores come.

        It is a share of the largest score that the graph gives: what rounding moves scores by grows with
        them. Infinite where nothing is chosen.

        Raises:
            InputError: A token is none of the model's.
            SessionError: The runtime failed, or its numbers are not finite.
        """

    def close(self) -> None:
        """Do nothing: the sessions belong to who gave them."""


class _Module(Protocol):
    def open_trial(self, graphs: Graphs) -> Trial:
        """Open the trial of the graphs' task."""


@dataclass(frozen=True, slots=True)
class TrialEntry:
    """Where the trial of a task is made, and what it looks at beside a picture.

    Attributes:
        module: Of this room.
        outputs: What the trial answers.
        n_texts: How many texts are looked at together with one picture, at most.
        least_texts: How many different ones are needed in all: those that are answered with features of
            their own must not be the same for every picture, since that says nothing.
        texts: Those that are taken where the user gives none.
    """

    module: str
    outputs: tuple[str, ...]
    n_texts: int = 0
    least_texts: int = 0
    texts: tuple[str, ...] = ()


_QUESTIONS: Final = (
    "what is in the picture?",
    "what colour is it?",
    "how many are there?",
    "where is it?",
    "is it inside or outside?",
)
_SENTENCES: Final = (
    "a photo of a person",
    "a photo of an animal",
    "a photo of a street with cars",
    "a photo of something to eat",
    "a photo of a landscape with trees",
    "a photo of a room",
    "a picture with words on it",
)

TRIALS: Final[Mapping[str, TrialEntry]] = {  # sorted; nothing is imported before it is asked for
    "answer": TrialEntry("anyport.task.writing_trial", (TOKENS,), 1, 1, _QUESTIONS),
    "caption": TrialEntry("anyport.task.writing_trial", (TOKENS,)),
    "embed": TrialEntry("anyport.task.encoding_trial", ("image", "text", "both"), 1, 2, _SENTENCES),
    "match": TrialEntry("anyport.task.encoding_trial", ("image", "text", "match_scores"), 4, 2, _SENTENCES),
}


def open_trial(graphs: Graphs) -> Trial:
    """Open the trial of the task that graphs are made for.

    Raises:
        UsageError: The task offers none, or its settings do not fit the parts.
    """
    entry = TRIALS.get(graphs.task or "")
    if entry is None:
        raise UsageError(
            f"the task '{graphs.task}' cannot be judged as a whole: known are {', '.join(TRIALS)}"
        )
    return cast("_Module", import_module(entry.module)).open_trial(graphs)


def texts_of(texts: Sequence[str], turn: int, n_texts: int) -> list[str]:
    """Return the texts of one sample: they are cycled over the samples.

    >>> texts_of(["a", "b", "c"], 2, 2)
    ['c', 'a']
    """
    return [texts[(turn + i) % len(texts)] for i in range(min(n_texts, len(texts)))]


def least_margin(scores: np.ndarray, largest: float) -> float:
    """Return how far the best score of a row is from the second best, where they are closest.

    >>> least_margin(np.array([[1.0, 4.0, 3.0]]), 4.0), least_margin(np.array([[5.0]]), 5.0)
    (0.25, inf)

    Args:
        scores: float[rows, choices]; minus infinity is never chosen.
        largest: The largest magnitude of what the graph gave; the margin is a share of it.
    """
    if scores.shape[1] < 2:  # noqa: PLR2004 -- one is no choice
        return math.inf
    second, first = np.partition(scores.astype(np.float64), (-2, -1), axis=1)[:, -2:].T
    margin = float(np.min(first - second))
    return margin / largest if largest > 0 else 0.0


def picture_spec(settings: PictureSettings) -> TensorSpec:
    """Return the input that takes a fitted picture."""
    height, width = settings.result_size
    return tensor(PICTURE, f"uint8[1, {height}, {width}, {settings.n_channels}]")


def text_spec(n_vocabulary: int) -> tuple[TensorSpec, dict[str, Dim]]:
    """Return the input that takes the tokens of texts, and the sizes of its axes."""
    spec = tensor(TEXTS, f"int64[1, texts, words] 0..{n_vocabulary - 1}")
    return spec, {"texts": dim("texts", f"1..{MAX_TEXTS}")}


def vocabulary_of(part: Signature, part_name: str) -> int:
    """Return how many tokens a part knows.

    Raises:
        UsageError: It does not say.
    """
    [spec] = [spec for spec in part.inputs if spec.name == "input_ids"]
    if spec.high is None:
        raise UsageError(f"the part '{part_name}' does not say which tokens it takes: {spec}")
    return int(spec.high) + 1


def tokens_of(texts: Sequence[str], reader: TextReader, settings: TextSettings) -> np.ndarray:
    """Return int64[1, texts, words]: the tokens inside, shorter texts filled on the right.

    Raises:
        InputError: A text is too long.
    """
    room = settings.max_length - N_AROUND
    rows = [reader.tokens(text, f"text '{text:.40}'", room) for text in texts]
    n = max(1, *map(len, rows))
    return np.array([[row + [settings.pad] * (n - len(row)) for row in rows]], np.int64)


def words_dim(settings: TextSettings) -> Dim:
    """Return how many tokens of each text there may be, none for a text without words.

    The first and the last token of a text are not counted, and must fit as well.
    """
    return dim("words", f"0..{settings.max_length - N_AROUND}")


def unfilled(row: np.ndarray, pad: int) -> list[int]:
    """Return the tokens of one text without the filling.

    >>> unfilled(np.array([7, 0, 8, 0]), 0)
    [7, 0, 8]
    """
    places = np.flatnonzero(row != pad)
    found: list[int] = row[: places[-1] + 1].tolist() if len(places) else []
    return found


def check_tokens(feeds: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec]) -> None:
    """Refuse tokens that the model does not have: a graph would read beside its table.

    Raises:
        InputError: Naming the first.
    """
    for spec in inputs:
        if spec.low is None or spec.high is None:
            continue
        tokens = feeds[spec.name]
        wrong = tokens[(tokens < spec.low) | (tokens > spec.high)]
        if wrong.size:
            raise InputError(
                f"'{spec.name}' holds the token {int(wrong[0])}, "
                f"the model has {spec.low:.0f} to {spec.high:.0f}"
            )
