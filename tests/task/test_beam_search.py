"""Beam search: against a search of all texts, and every row for itself; transformers' own in test_caption."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from anyport.task.beam_search import write_beams
from anyport.task.generation import Beams, Generation, Written, fill_left
from anyport.task.token_scores import log_softmax
from tests.task import counting

PROMPTS = [[4], [4, 5, 6], [4, 7], [4, 8, 9, 10], [4, 5]]
HOWS = [
    Generation(Beams(2)),
    Generation(Beams(3, 2.0), max_new_tokens=9),
    Generation(Beams(5, -1.0), repetition_penalty=1.5),
    Generation(Beams(3, 0.0), min_new_tokens=5),
]


def written(prompts: list[list[int]], how: Generation, first: int = 0, end: float = 1.0) -> list[Written]:
    state = counting.state(counting.CountingDecoder(end=end), len(prompts), first)
    return write_beams(state, fill_left(prompts, counting.PAD), how, counting.END)


@pytest.mark.parametrize("how", HOWS)
def test_a_batch_is_its_singles(how: Generation) -> None:
    batch = written(PROMPTS, how)
    singles = [written([prompt], how, i)[0] for i, prompt in enumerate(PROMPTS)]
    assert [one.tokens for one in batch] == [one.tokens for one in singles]
    assert [one.score for one in batch] == pytest.approx([one.score for one in singles], abs=1e-5)
    assert all(how.min_new_tokens < len(one.tokens) <= how.max_new_tokens for one in batch)


def score_of(tokens: tuple[int, ...], length_penalty: float) -> float:
    """Add up the log-probabilities of a text by feeding it."""
    state = counting.state(counting.CountingDecoder(end=1.0), 1)
    total = 0.0
    for token, following in zip((4, *tokens), tokens, strict=False):
        total += float(log_softmax(state.read(np.array([[token]])))[0, following])
    return total / len(tokens) ** length_penalty


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_with_enough_beams_the_best_of_all_texts_is_found(length_penalty: float) -> None:
    others = [token for token in range(counting.N_VOCABULARY) if token != counting.END]
    texts = [
        (counting.END,),
        *((token, counting.END) for token in others),
        *itertools.product(others, repeat=2),
    ]
    best = max(texts, key=lambda text: score_of(text, length_penalty))
    [found] = written([[4]], Generation(Beams(12, length_penalty), max_new_tokens=2))
    assert found.tokens == best
    assert found.score == pytest.approx(score_of(best, length_penalty), abs=1e-5)


def test_the_score_is_the_sum_over_the_penalized_length() -> None:
    for length_penalty in (0.0, 1.0, 1.7):
        [found] = written([[4]], Generation(Beams(3, length_penalty)))
        assert found.score == pytest.approx(score_of(found.tokens, length_penalty), abs=1e-5)


def test_a_picture_that_is_done_is_no_longer_computed() -> None:
    decoder = counting.CountingDecoder(end=3.0)
    state = counting.state(decoder, len(PROMPTS))
    write_beams(state, fill_left(PROMPTS, 0), Generation(Beams(2)), counting.END)
    rows = [n_rows for n_rows, _ in decoder.shapes]
    assert rows[0] == len(PROMPTS)  # a prompt is read once, not once for each beam
    assert rows[1] == 2 * len(PROMPTS)
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert rows[-1] < rows[1]


def test_more_beams_than_tokens_are_no_error() -> None:
    [found] = written([[4]], Generation(Beams(30), max_new_tokens=4))
    assert 1 <= len(found.tokens) <= 4
