"""Writing one token after the other: the most probable one, or a drawn one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from anyport.task.generation import Sample, Written, check_logits, next_scores
from anyport.task.token_scores import keep_best, keep_nucleus, log_softmax

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyport.task.decoding import DecoderState
    from anyport.task.generation import Generation, Prompts


@dataclass(frozen=True, slots=True)
class WrittenToken:
    """One token of one row, as it is chosen."""

    row: int
    token: int
    log_probability: float
    margin: float | None


def write_stepwise(
    state: DecoderState, prompts: Prompts, how: Generation, end_id: int
) -> Iterator[WrittenToken]:
    """Write every row to its end; a row that has ended is no longer computed.

    Args:
        state: A decoder that has read nothing, with a row for each prompt.
        prompts: What each row begins with.
        how: With `Greedy` or `Sample`.
        end_id: The token that ends a text.

    Yields:
        Each token when it is chosen, the end token too.

    Raises:
        SessionError: The runtime failed, or the scores are not finite.
    """
    choose = _Draws(how.search, state.n_rows) if isinstance(how.search, Sample) else _best
    rows, history = np.arange(state.n_rows), prompts.history
    tokens, mask = prompts.tokens, prompts.mask
    for n_new in range(how.max_new_tokens):
        logits = check_logits(state.read(tokens, mask))
        scores = next_scores(logits, history, how, end_id, n_new)
        chosen, margins = choose(scores, rows)
        likely = np.take_along_axis(log_softmax(logits), chosen[:, None], axis=1)[:, 0]
        for row, token, log_probability, margin in zip(rows, chosen, likely, margins, strict=True):
            yield WrittenToken(int(row), int(token), float(log_probability), margin)
        going_on = np.flatnonzero(chosen != end_id)
        if not len(going_on):
            return
        state.keep(going_on)
        rows, history = rows[going_on], np.concatenate([history, chosen[:, None]], axis=1)[going_on]
        tokens, mask = chosen[going_on, None], np.ones((len(going_on), 1), np.int64)


def gather(found: Iterator[WrittenToken], n_rows: int) -> list[Written]:
    """Collect what `write_stepwise` yields, row by row."""
    rows: list[list[WrittenToken]] = [[] for _ in range(n_rows)]
    for one in found:
        rows[one.row].append(one)
    return [
        Written(
            tuple(one.token for one in row),
            sum(one.log_probability for one in row) / len(row),
            min((one.margin for one in row if one.margin is not None), default=None),
        )
        for row in rows
    ]


def _best(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, list[float | None]]:  # noqa: ARG001
    """Return the best token of each row, of equal ones the first, and how far the second best is."""
    chosen = scores.argmax(axis=1)
    second, first = np.partition(scores, (-2, -1), axis=1)[:, -2:].T
    return chosen, [float(margin) for margin in first - second]


class _Draws:
    """Random numbers of each row's own, so that a row does not depend on its neighbours."""

    def __init__(self, search: Sample, n_rows: int) -> None:
        self._search = search
        self._random = [np.random.default_rng(search.seed) for _ in range(n_rows)]

    def __call__(self, scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, list[float | None]]:
        """Draw one token for each row."""
        sums = np.exp(log_softmax(sampled_scores(scores, self._search)).astype(np.float64)).cumsum(axis=1)
        places = np.array([self._random[row].random() for row in rows]) * sums[:, -1]
        places = np.minimum(places, np.nextafter(sums[:, -1], 0))  # below the end, whatever was rounded
        drawn = [np.searchsorted(row, place, side="right") for row, place in zip(sums, places, strict=True)]
        return np.array(drawn, np.int64), [None] * len(rows)


def sampled_scores(scores: np.ndarray, search: Sample) -> np.ndarray:
    """Return the scores whose softmax is drawn from: temperature, then ``top_k``, then ``top_p``."""
    changed = scores / np.float32(search.temperature)
    if search.top_k:
        changed = keep_best(changed, search.top_k)
    return keep_nucleus(changed, search.top_p) if search.top_p < 1 else changed
