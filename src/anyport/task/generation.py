"""How text is written token by token: the choices, and what comes out of them; numpy only.

The rules are those of ``generate()`` in transformers 5.23: for one prompt the same tokens come out (in
sampling the same probabilities; the draws are numpy's). A row never depends on its neighbours: a batch,
whatever the lengths in it, gives what its rows give alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.errors import SessionError, UsageError
from anyport.task.token_scores import forbid, penalize

if TYPE_CHECKING:
    from collections.abc import Sequence

# At both ends nothing changes any more: at 1e-6 what scores 0.001 more is e^1000 times as probable, which is
# greedy, and at 1e6 all are alike. Far beyond them float32 scores become infinite or all 0.
TEMPERATURES: Final = (1e-6, 1e6)
LENGTH_PENALTIES: Final = (-10.0, 10.0)  # 5000 tokens ** 10 = 1e37 is just below the largest float32
REPETITION_PENALTIES: Final = (0.01, 100.0)  # published ones lie between 1 and 2


@dataclass(frozen=True, slots=True)
class Greedy:
    """The most probable token each time."""


@dataclass(frozen=True, slots=True)
class Beams:
    """Beam search, with ``early_stopping=False``.

    Attributes:
        n: How many texts are followed at a time.
        length_penalty: A text's score is its log-probability / its number of new tokens ** this; above 0
            favours long texts; -10 to 10.
    """

    n: int = 3
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        _check_whole("the number of beams", self.n)
        if self.n < 2:  # noqa: PLR2004 -- one beam is another method
            raise UsageError(f"beam search with {self.n} beams is none", do="give 2 or more, or leave it out")
        _check_range("the length penalty", self.length_penalty, LENGTH_PENALTIES)


@dataclass(frozen=True, slots=True)
class Sample:
    """One draw each time. Every row begins with the seed: the same picture and words give the same text.

    Attributes:
        seed: Where the random numbers begin; numpy's PCG64.
        temperature: The scores are divided by it; below 1 makes the probable more so; 1e-6 to 1e6.
        top_k: How many of the best tokens are left; 0 leaves all.
        top_p: The fewest tokens are left whose probabilities sum to this; 1 leaves all.
    """

    seed: int = 0
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        _check_whole("the seed", self.seed)
        if self.seed < 0:
            raise UsageError(f"the seed is {self.seed}, it must be 0 or more")
        _check_range("the temperature", self.temperature, TEMPERATURES)
        _check_whole("top_k", self.top_k)
        if self.top_k < 0:
            raise UsageError(f"top_k is {self.top_k}, it must be 0 (all tokens) or more")
        if not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise UsageError(f"top_p is {self.top_p}, it must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Generation:
    """How text is written.

    Attributes:
        search: What chooses the tokens.
        max_new_tokens: Writing ends after so many, the end token among them.
        min_new_tokens: Before so many there is no end. transformers' ``min_length`` and ``max_length`` count
            the prompt and its first token, too.
        repetition_penalty: Above 1 against tokens of the prompt and of the text so far; 1 is none; 0.01 to
            100.
    """

    search: Greedy | Beams | Sample = field(default_factory=Greedy)
    max_new_tokens: int = 20
    min_new_tokens: int = 0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if not isinstance(self.search, Greedy | Beams | Sample):
            raise UsageError(
                f"the search is a {type(self.search).__name__}", do="give Greedy(), Beams(…) or Sample(…)"
            )
        _check_whole("max_new_tokens", self.max_new_tokens)
        _check_whole("min_new_tokens", self.min_new_tokens)
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens is {self.max_new_tokens}, it must be 1 or more")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise UsageError(
                f"min_new_tokens is {self.min_new_tokens}, "
                f"it must be 0 to max_new_tokens, which is {self.max_new_tokens}"
            )
        _check_range("the repetition penalty", self.repetition_penalty, REPETITION_PENALTIES)

    @property
    def n_rows(self) -> int:
        """How many rows of the decoder one text takes."""
        return self.search.n if isinstance(self.search, Beams) else 1


@dataclass(frozen=True, slots=True)
class Written:
    """One text.

    Attributes:
        tokens: What was written after the prompt; the last one is the end token if the text came to its end.
        score: The mean log-probability of these tokens; in beam search their sum / their number **
            ``length_penalty``, after the repetition penalty.
        margin: The least distance met between the best and the second best score, where the best token is
            chosen: how large an error would have to be to change the text.
    """

    tokens: tuple[int, ...]
    score: float
    margin: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """The beginnings of several texts, as the decoder reads them.

    Attributes:
        tokens: int64[rows, n]; shorter ones are filled on the left, so that all end in the last column.
        mask: int64[rows, n]; 0 where filled.
    """

    tokens: np.ndarray
    mask: np.ndarray

    @property
    def history(self) -> np.ndarray:
        """Return int64[rows, n] with each row's own tokens only: the filling repeats the first of them."""
        first = np.take_along_axis(self.tokens, self.mask.argmax(axis=1)[:, None], axis=1)
        return np.where(self.mask == 1, self.tokens, first)


def fill_left(rows: Sequence[Sequence[int]], pad_id: int) -> Prompts:
    """Put texts of several lengths into one array, each ending in the last column.

    >>> fill_left([[7], [8, 9]], 0).tokens.tolist()
    [[0, 7], [8, 9]]
    """
    n = max(map(len, rows))
    tokens = np.array([[pad_id] * (n - len(row)) + list(row) for row in rows], np.int64)
    mask = np.array([[0] * (n - len(row)) + [1] * len(row) for row in rows], np.int64)
    return Prompts(tokens, mask)


def next_scores(
    logits: np.ndarray, history: np.ndarray, how: Generation, end_id: int, n_new: int
) -> np.ndarray:
    """Apply what holds for every search: the repetition penalty, and no end before ``min_new_tokens``.

    Args:
        logits: float32[rows, vocabulary], or log-probabilities.
        history: int64[rows, n], each row's own tokens, those of the prompt too.
        how: The settings.
        end_id: The end token.
        n_new: How many tokens have been written.
    """
    scores = logits
    if how.repetition_penalty != 1:
        scores = penalize(scores, history, how.repetition_penalty)
    return forbid(scores, end_id) if n_new < how.min_new_tokens else scores


def check_logits(logits: np.ndarray) -> np.ndarray:
    """Return them.

    Raises:
        SessionError: One is not finite.
    """
    if not np.isfinite(logits).all():
        raise SessionError("the decoder's scores are not finite")
    return logits


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real)  # numpy's numbers are Real, too


def _check_whole(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{what} is {value!r}, it must be a whole number")


def _check_range(what: str, value: float, limits: tuple[float, float]) -> None:
    least, most = limits
    if not (_is_number(value) and least <= value <= most):  # NaN is in no range
        raise UsageError(f"{what} is {value!r}, it must be {least:g} to {most:g}")
