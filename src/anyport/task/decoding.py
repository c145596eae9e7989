"""A text decoder at work: what it has read, step by step, with the keys and values that it remembers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.runtime import Session
    from anyport.tensors import Signature


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a decoder looks at while it writes: a picture, or a question about one.

    Attributes:
        keys: ``cross_0_k``, ``cross_0_v``, …: float32[rows, heads, positions, head_dim].
        mask: int64[rows, positions]; 0 hides a position.
    """

    keys: Mapping[str, np.ndarray]
    mask: np.ndarray

    def taken(self, rows: np.ndarray) -> Seen:
        """Return these rows, in this order."""
        return Seen({name: array[rows] for name, array in self.keys.items()}, self.mask[rows])

    def moved(self, rows: np.ndarray) -> Seen:
        """Return these rows in the memory of this one, which is not to be used afterwards.

        Args:
            rows: In ascending order; row ``i`` of the result is row ``i`` of this one, or a later one.
        """
        for array in (*self.keys.values(), self.mask):
            for to, place in enumerate(rows):
                if to != place:
                    array[to] = array[place]
        n = len(rows)
        return Seen({name: array[:n] for name, array in self.keys.items()}, self.mask[:n])


class DecoderState:
    """The rows that a decoder is writing.

    Attributes:
        n_rows: How many there are.
    """

    def __init__(self, session: Session, signature: Signature, seen: Seen) -> None:
        self.n_rows = len(seen.mask)
        self._session = session
        self._seen = seen
        self._is_own = False  # whether nobody else has the arrays of what is seen
        self._source = np.arange(self.n_rows)  # the row of what is seen, for each row that is written
        self._mask = np.zeros((self.n_rows, 0), np.int64)
        self._past = {
            spec.name: np.zeros(
                (self.n_rows, spec.axes[1].size({}), 0, spec.axes[3].size({})), np.dtype(spec.dtype)
            )
            for spec in signature.inputs
            if spec.name.startswith("past_")
        }

    def read(self, tokens: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Read the next tokens of every row.

        Args:
            tokens: int64[rows, n]: the prompt, then one at a time.
            mask: int64[rows, n], 0 where a shorter row is filled on the left; all are read if absent.

        Returns:
            float32[rows, vocabulary], the scores of the token that follows.
        """
        n_new = tokens.shape[1]
        new = np.ones(tokens.shape, np.int64) if mask is None else mask
        self._mask = np.concatenate([self._mask, new], axis=1)
        positions = np.maximum(self._mask.cumsum(axis=1) - 1, 0)[:, -n_new:]
        found = self._session.run(
            {
                "input_ids": tokens,
                "attention_mask": self._mask,
                "position_ids": np.ascontiguousarray(positions),
                "cross_mask": self._seen.mask,
                **self._past,
                **self._seen.keys,
            }
        )
        self._past = {name: found[name.replace("past_", "present_", 1)] for name in self._past}
        return found["logits"].astype(np.float32, copy=False)

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows, in this order; one may come twice, and one left out is forgotten.

        What is seen stays as it is where every row goes on with the picture that the row before it had: the
        beams of one picture share it, and it is the larger part (43 MB a picture in a base BLIP).
        """
        if np.array_equal(rows, np.arange(self.n_rows)):
            return
        source = self._source[rows]
        if not np.array_equal(source, self._source):
            self._look_at(rows, source)
        self._source, self.n_rows = source, len(rows)
        self._mask = self._mask[rows]
        self._past = {name: array[rows] for name, array in self._past.items()}

    def _look_at(self, rows: np.ndarray, source: np.ndarray) -> None:
        """Change what is seen: copied the first time, then moved within that copy.

        A copy of 7 pictures of a base BLIP costs as much as three steps of its decoder, most of it for fresh
        memory; moving them costs a seventh of a step.
        """
        forward = np.sort(rows)  # rows of one picture see the same, so that any of them will do
        is_forward = bool((forward >= np.arange(len(rows))).all())
        if self._is_own and is_forward and np.array_equal(self._source[forward], source):
            self._seen = self._seen.moved(forward)
        else:
            self._seen, self._is_own = self._seen.taken(rows), True
