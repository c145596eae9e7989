"""The settings of writing, and prompts of several lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anyport.errors import SessionError, UsageError
from anyport.task.beam_search import write_beams
from anyport.task.generation import (
    LENGTH_PENALTIES,
    REPETITION_PENALTIES,
    TEMPERATURES,
    Beams,
    Generation,
    Greedy,
    Sample,
    check_logits,
    fill_left,
    next_scores,
)
from anyport.task.stepwise import write_stepwise
from tests.task import counting


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        (Beams, {"n": 1}, "beam search with 1 beams is none"),
        (Beams, {"length_penalty": float("nan")}, "the length penalty is nan, it must be -10 to 10"),
        (Beams, {"length_penalty": 400.0}, "the length penalty is 400.0, it must be -10 to 10"),
        (Beams, {"length_penalty": -30}, "the length penalty is -30, it must be -10 to 10"),
        (Beams, {"n": 2.5}, "the number of beams is 2.5, it must be a whole number"),
        (Beams, {"n": True}, "the number of beams is True, it must be a whole number"),
        (Sample, {"seed": -1}, "the seed is -1, it must be 0 or more"),
        (Sample, {"seed": "7"}, "the seed is '7', it must be a whole number"),
        (Sample, {"temperature": 0.0}, "the temperature is 0.0, it must be 1e-06 to 1e+06"),
        (Sample, {"temperature": 1e-300}, "the temperature is 1e-300, it must be 1e-06 to 1e+06"),
        (Sample, {"temperature": 1e-38}, "the temperature is 1e-38, it must be 1e-06 to 1e+06"),
        (Sample, {"temperature": 1e39}, "the temperature is 1e+39, it must be 1e-06 to 1e+06"),
        (Sample, {"temperature": float("inf")}, "the temperature is inf, it must be 1e-06 to 1e+06"),
        (Sample, {"temperature": None}, "the temperature is None, it must be 1e-06 to 1e+06"),
        (Sample, {"top_k": 2.0}, "top_k is 2.0, it must be a whole number"),
        (Sample, {"top_p": "a"}, "top_p is a, it must be above 0 and at most 1"),
        (Sample, {"top_k": -1}, "top_k is -1, it must be 0 (all tokens) or more"),
        (Sample, {"top_p": 0.0}, "top_p is 0.0, it must be above 0 and at most 1"),
        (Sample, {"top_p": 1.5}, "top_p is 1.5, it must be above 0 and at most 1"),
        (Generation, {"search": "greedy"}, "the search is a str"),
        (Generation, {"search": Beams}, "the search is a type"),
        (Generation, {"max_new_tokens": 2.5}, "max_new_tokens is 2.5, it must be a whole number"),
        (Generation, {"min_new_tokens": 0.5}, "min_new_tokens is 0.5, it must be a whole number"),
        (Generation, {"max_new_tokens": 0}, "max_new_tokens is 0, it must be 1 or more"),
        (
            Generation,
            {"max_new_tokens": 3, "min_new_tokens": 4},
            "min_new_tokens is 4, it must be 0 to max_new_tokens, which is 3",
        ),
        *(
            (
                Generation,
                {"repetition_penalty": value},
                f"the repetition penalty is {value!r}, it must be 0.01 to 100",
            )
            for value in (0.0, 1e-300, 1e300, float("inf"), "a")
        ),
    ],
)
def test_impossible_settings_are_refused(kind: Any, words: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**words)
    assert caught.value.what.startswith(message)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_at_the_ends_of_the_temperatures_a_token_is_drawn(temperature: float, top_p: float) -> None:
    how = Generation(Sample(temperature=temperature, top_k=0, top_p=top_p), max_new_tokens=6)
    state = counting.state(counting.CountingDecoder(end=0.0), 2)
    found = list(write_stepwise(state, fill_left([[4], [4, 5]], counting.PAD), how, counting.END))
    assert {one.row for one in found} == {0, 1}
    assert all(0 <= one.token < counting.N_VOCABULARY and np.isfinite(one.log_probability) for one in found)


@pytest.mark.parametrize("length_penalty", LENGTH_PENALTIES)
@pytest.mark.parametrize("repetition_penalty", REPETITION_PENALTIES)
def test_at_the_ends_of_the_penalties_scores_are_finite(
    length_penalty: float, repetition_penalty: float
) -> None:
    how = Generation(Beams(3, length_penalty), 60, repetition_penalty=repetition_penalty)
    state = counting.state(counting.CountingDecoder(end=-1e4), 1)
    [found] = write_beams(state, fill_left([[4]], counting.PAD), how, counting.END)
    assert len(found.tokens) > 2
    assert np.isfinite(found.score)
    assert found.score < 0


def test_numpy_s_numbers_are_numbers() -> None:
    assert Beams(np.int64(3), np.float32(2)) == Beams(3, 2.0)  # type: ignore[arg-type]
    assert Sample(top_k=np.int32(5)).top_k == 5  # type: ignore[arg-type]


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
