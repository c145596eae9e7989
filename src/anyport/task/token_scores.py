"""What is done to the scores of the next token before one is chosen; numpy only.

Each function takes float32[rows, vocabulary] and returns a new array. The arithmetic is that of
transformers 5.23 (``generation/logits_process.py``), so that the same tokens are chosen.
"""

from __future__ import annotations

import numpy as np


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Return the logarithm of the probabilities.

    >>> log_softmax(np.zeros((1, 2), np.float32)).round(3).tolist()
    [[-0.6930000185966492, -0.6930000185966492]]
    """
    lowered = scores - scores.max(axis=-1, keepdims=True)
    result: np.ndarray = lowered - np.log(np.exp(lowered).sum(axis=-1, keepdims=True))
    return result


def penalize(scores: np.ndarray, written: np.ndarray, penalty: float) -> np.ndarray:
    """Make tokens that were written before less likely: a score below 0 is multiplied, another divided.

    Args:
        scores: float32[rows, vocabulary].
        written: int64[rows, n], the tokens of each row so far, those of the prompt too; repeats count once.
        penalty: Above 1 against repetition (Keskar et al. 2019, CTRL, section 4.1); 1 changes nothing.
    """
    found = np.take_along_axis(scores, written, axis=1)
    factor = np.float32(penalty)
    changed = scores.copy()
    np.put_along_axis(changed, written, np.where(found < 0, found * factor, found / factor), axis=1)
    return changed


def forbid(scores: np.ndarray, token_id: int) -> np.ndarray:
    """Make one token impossible."""
    changed = scores.copy()
    changed[:, token_id] = -np.inf
    return changed


def keep_best(scores: np.ndarray, n: int) -> np.ndarray:
    """Make all but the ``n`` best tokens of each row impossible; those equal to the last one stay.

    >>> keep_best(np.array([[3.0, 1.0, 2.0]], np.float32), 2).tolist()
    [[3.0, -inf, 2.0]]
    """
    if n >= scores.shape[1]:
        return scores
    least = np.partition(scores, -n, axis=1)[:, -n, None]
    return np.where(scores < least, np.float32(-np.inf), scores)


def keep_nucleus(scores: np.ndarray, mass: float) -> np.ndarray:
    """Keep the fewest tokens of each row whose probabilities reach ``mass`` (Holtzman et al. 2020)."""
    order = np.argsort(scores, axis=1, kind="stable")  # the least probable first
    sums = np.exp(log_softmax(np.take_along_axis(scores, order, axis=1))).cumsum(axis=1)
    is_out = sums <= 1 - mass
    is_out[:, -1] = False
    changed = scores.copy()
    kept = np.where(is_out, np.float32(-np.inf), np.take_along_axis(scores, order, axis=1))
    np.put_along_axis(changed, order, kept, axis=1)
    return changed
