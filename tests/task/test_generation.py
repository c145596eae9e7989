"""The settings of writing, and prompts of several lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anyport.errors import SessionError, UsageError
from anyport.task.generation import Beams, Generation, Greedy, Sample, check_logits, fill_left, next_scores


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        (Beams, {"n": 1}, "beam search with 1 beams is none"),
        (Beams, {"length_penalty": float("nan")}, "the length penalty is nan, it must be a finite number"),
        (Sample, {"seed": -1}, "the seed is -1, it must be 0 or more"),
        (Sample, {"temperature": 0.0}, "the temperature is 0.0, it must be above 0"),
        (Sample, {"temperature": float("inf")}, "the temperature is inf, it must be above 0"),
        (Sample, {"top_k": -1}, "top_k is -1, it must be 0 (all tokens) or more"),
        (Sample, {"top_p": 0.0}, "top_p is 0.0, it must be above 0 and at most 1"),
        (Sample, {"top_p": 1.5}, "top_p is 1.5, it must be above 0 and at most 1"),
        (Generation, {"max_new_tokens": 0}, "max_new_tokens is 0, it must be 1 or more"),
        (
            Generation,
            {"max_new_tokens": 3, "min_new_tokens": 4},
            "min_new_tokens is 4, it must be 0 to max_new_tokens, which is 3",
        ),
        (Generation, {"repetition_penalty": 0.0}, "the repetition penalty is 0.0, it must be above 0"),
        (
            Generation,
            {"repetition_penalty": float("inf")},
            "the repetition penalty is inf, it must be a finite",
        ),
    ],
)
def test_impossible_settings_are_refused(kind: Any, words: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**words)
    assert caught.value.what.startswith(message)


def test_a_text_takes_as_many_rows_as_it_has_beams() -> None:
    assert [Generation(search).n_rows for search in (Greedy(), Sample(), Beams(4))] == [1, 1, 4]


def test_prompts_end_in_the_last_column() -> None:
    found = fill_left([[7], [8, 9, 10]], 0)
    assert found.tokens.tolist() == [[0, 0, 7], [8, 9, 10]]
    assert found.mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert found.history.tolist() == [[7, 7, 7], [8, 9, 10]]  # the filling was never written


def test_no_end_before_the_least_length() -> None:
    logits, history = np.ones((1, 4), np.float32), np.array([[2]])
    how = Generation(min_new_tokens=2, repetition_penalty=2.0)
    assert next_scores(logits, history, how, 3, 1).tolist() == [[1, 1, 0.5, -np.inf]]
    assert next_scores(logits, history, how, 3, 2).tolist() == [[1, 1, 0.5, 1]]
    assert next_scores(logits, history, Generation(), 3, 0) is logits


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(SessionError, match="the decoder's scores are not finite"):
        check_logits(np.array([[1, np.nan]]))
