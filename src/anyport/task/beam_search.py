"""Beam search with the rules of transformers 5.23: ``_beam_search`` with ``early_stopping=False``.

A picture follows ``n`` texts. Each step looks at the ``2 n`` best continuations of all of them: those that do
not end go on, at most ``n``; those that end, and are among the ``n`` best, are kept if they beat one of the
``n`` finished texts. A picture is done when its best unfinished text, scored at its present length, cannot
beat the worst of ``n`` finished ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from anyport.task.generation import Beams, Written, check_logits, next_scores
from anyport.task.token_scores import log_softmax

if TYPE_CHECKING:
    from anyport.task.decoding import DecoderState
    from anyport.task.generation import Generation, Prompts


def write_beams(state: DecoderState, prompts: Prompts, how: Generation, end_id: int) -> list[Written]:
    """Write the best text of every row.

    Args:
        state: A decoder that has read nothing, with a row for each prompt.
        prompts: What each row begins with.
        how: With `Beams`.
        end_id: The token that ends a text.

    Raises:
        SessionError: The runtime failed, or the scores are not finite.
    """
    search = how.search if isinstance(how.search, Beams) else Beams()
    pictures = [_Hypotheses(search, end_id, how.max_new_tokens) for _ in range(state.n_rows)]
    open_ones, history = pictures, prompts.history
    tokens, mask = prompts.tokens, prompts.mask
    for n_new in range(how.max_new_tokens):
        log_probs = log_softmax(check_logits(state.read(tokens, mask)))
        scores = next_scores(log_probs, history, how, end_id, n_new)
        new_text = history[:, prompts.tokens.shape[1] :]
        steps, first = [], 0
        for picture in open_ones:
            own = slice(first, first + len(picture.scores))
            steps.append(picture.advance(scores[own], new_text[own]).below(first))
            first = own.stop
        steps = [step for step, picture in zip(steps, open_ones, strict=True) if not picture.is_done]
        open_ones = [picture for picture in open_ones if not picture.is_done]
        if not open_ones:
            break
        rows = np.concatenate([step.rows for step in steps])
        chosen = np.concatenate([step.tokens for step in steps])
        state.keep(rows)
        history = np.concatenate([history[rows], chosen[:, None]], axis=1)
        tokens, mask = chosen[:, None], np.ones((len(rows), 1), np.int64)
    return [picture.finished[0] for picture in pictures]


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """How the texts of one picture go on: the row that each continues, and its next token."""

    rows: np.ndarray
    tokens: np.ndarray

    def below(self, first: int) -> _Step:
        """Count the rows from another place."""
        return _Step(self.rows + first, self.tokens)


class _Hypotheses:
    """The texts of one picture.

    Attributes:
        scores: float32[n], the log-probability of each unfinished text; the best first.
        finished: At most ``n`` finished texts, the best first.
        is_done: Whether no unfinished text can change the result.
    """

    def __init__(self, search: Beams, end_id: int, max_new_tokens: int) -> None:
        self.scores = np.zeros(1, np.float32)  # all beams begin alike: the prompt is read once
        self.finished: list[Written] = []
        self.is_done = False
        self._search, self._end_id, self._max_new_tokens = search, end_id, max_new_tokens

    def advance(self, scores: np.ndarray, texts: np.ndarray) -> _Step:
        """Choose how the texts go on.

        Args:
            scores: float32[n, vocabulary], log-probabilities of the next token.
            texts: int64[n, length], what has been written.
        """
        n, length = self._search.n, texts.shape[1] + 1
        sums = (scores + self.scores[:, None]).ravel()
        best = _largest(sums, 2 * n)
        rows, tokens = best // scores.shape[1], best % scores.shape[1]
        ends = (tokens == self._end_id) | (length == self._max_new_tokens)
        scale = np.float32(length**self._search.length_penalty)
        self.finished += [
            Written((*texts[rows[i]].tolist(), int(tokens[i])), float(sums[best[i]] / scale))
            for i in np.flatnonzero(ends[:n])
        ]
        self.finished = sorted(self.finished, key=lambda text: -text.score)[:n]
        on = np.flatnonzero(~ends)[:n]
        self.scores = sums[best[on]]
        self.is_done = not len(on) or (
            len(self.finished) == n and not self.scores[0] / scale > self.finished[-1].score
        )
        return _Step(rows[on], tokens[on])


def _largest(values: np.ndarray, n: int) -> np.ndarray:
    """Return the places of the ``n`` largest values that are possible at all, the largest first."""
    if n < len(values):
        least = np.partition(values, -n)[-n]
        places = np.flatnonzero(values >= least)  # in their order, so that of equal ones the first counts
    else:
        places = np.arange(len(values))
    places = places[np.isfinite(values[places])]
    largest: np.ndarray = places[np.argsort(-values[places], kind="stable")][:n]
    return largest
