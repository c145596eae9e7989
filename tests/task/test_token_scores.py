"""Scores of the next token: the same as transformers' own processors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from anyport.task.token_scores import forbid, keep_best, keep_nucleus, log_softmax, penalize

SCORES = np.random.default_rng(0).normal(0, 3, (5, 40)).astype(np.float32)
WRITTEN = np.random.default_rng(1).integers(0, 40, (5, 7))


def test_log_softmax_is_that_of_torch() -> None:
    expected = torch.log_softmax(torch.tensor(SCORES), -1).numpy()
    np.testing.assert_allclose(log_softmax(SCORES), expected, atol=1e-6)
    assert log_softmax(SCORES).dtype == np.float32


def test_log_softmax_of_large_and_impossible_scores_is_finite() -> None:
    found = log_softmax(np.array([[1e30, -np.inf, 0]], np.float32))
    assert found[0].tolist() == [0, -np.inf, pytest.approx(-1e30)]


@pytest.mark.parametrize("penalty", [0.5, 1.3, 2.0])
def test_the_penalty_is_that_of_transformers(penalty: float) -> None:
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor(WRITTEN), torch.tensor(SCORES))
    np.testing.assert_array_equal(penalize(SCORES, WRITTEN, penalty), expected.numpy())


def test_a_token_written_twice_is_penalized_once() -> None:
    found = penalize(np.array([[2.0, -2.0, 4.0]], np.float32), np.array([[0, 0, 1]]), 2)
    assert found.tolist() == [[1, -4, 4]]


@pytest.mark.parametrize("n", [1, 3, 40, 100])
def test_the_best_are_those_of_transformers(n: int) -> None:
    expected = TopKLogitsWarper(n)(torch.tensor(WRITTEN), torch.tensor(SCORES)).numpy()
    np.testing.assert_array_equal(keep_best(SCORES, n), expected)


@pytest.mark.parametrize("mass", [0.01, 0.5, 0.9, 0.999])
def test_the_nucleus_is_that_of_transformers(mass: float) -> None:
    expected = TopPLogitsWarper(mass)(torch.tensor(WRITTEN), torch.tensor(SCORES)).numpy()
    np.testing.assert_array_equal(keep_nucleus(SCORES, mass), expected)


def test_nothing_changes_the_scores_that_were_given() -> None:
    before = SCORES.copy()
    for changed in (
        penalize(SCORES, WRITTEN, 2),
        forbid(SCORES, 3),
        keep_best(SCORES, 2),
        keep_nucleus(SCORES, 0.1),
    ):
        assert (changed != SCORES).any()
    np.testing.assert_array_equal(SCORES, before)
    assert np.isneginf(forbid(SCORES, 3)[:, 3]).all()
