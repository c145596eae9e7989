"""A decoder of a few lines, in the place of a graph: what it says depends on all that it was fed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from anyport.bundle import PartEntry
from anyport.runtime.signature import signature_of_part
from anyport.task.decoding import DecoderState, Seen
from anyport.tensors import check_feeds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.tensors import TensorSpec

N_VOCABULARY, END, PAD = 11, 3, 0
_PAST = "float32[batch, 1, past, 3]"
SIGNATURE = signature_of_part(
    PartEntry(
        {
            "input_ids": f"int64[batch, sequence] 0..{N_VOCABULARY - 1}",
            "attention_mask": "int64[batch, past+sequence] 0..1",
            "position_ids": "int64[batch, sequence] 0..99",
            "cross_mask": "int64[batch, positions] 0..1",
            "past_0_k": _PAST,
            "past_0_v": _PAST,
            "cross_0_k": "float32[batch, 1, positions, 3]",
            "cross_0_v": "float32[batch, 1, positions, 3]",
        },
        {
            "logits": f"float32[batch, {N_VOCABULARY}]",
            "present_0_k": "float32[batch, 1, past+sequence, 3]",
            "present_0_v": "float32[batch, 1, past+sequence, 3]",
        },
        {"batch": "1..64", "sequence": "1..64", "past": "0..64", "positions": "1..9"},
    )
)


class CountingDecoder:
    """Each token leaves a trace in its key and value, by what it is and where; scores come from the sum."""

    def __init__(self, seed: int = 0, end: float = 0.0) -> None:
        random = np.random.default_rng(seed)
        self._table = random.normal(0, 1, (N_VOCABULARY, 3)).astype(np.float32)
        self._scores = random.normal(0, 1, (3, N_VOCABULARY)).astype(np.float32)
        self._end = np.eye(N_VOCABULARY, dtype=np.float32)[END] * end
        self.shapes: list[tuple[int, ...]] = []

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return SIGNATURE.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return SIGNATURE.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_feeds(feeds, SIGNATURE.inputs, SIGNATURE.dims)
        self.shapes.append(feeds["input_ids"].shape)
        traces = self._table[feeds["input_ids"]] * (1 + feeds["position_ids"][..., None] % 4)
        keys = np.concatenate([feeds["past_0_k"], traces[:, None].astype(np.float32)], axis=2)
        seen = (feeds["cross_0_k"][:, 0] * feeds["cross_mask"][..., None]).sum(axis=1)
        read = (keys[:, 0] * feeds["attention_mask"][..., None]).sum(axis=1)
        logits = 3 * np.sin(read + seen) @ self._scores + self._end
        return {"logits": logits.astype(np.float32), "present_0_k": keys, "present_0_v": -keys}

    def close(self) -> None:
        pass


def state(decoder: CountingDecoder, n_rows: int, first: int = 0) -> DecoderState:
    """Begin rows that see different things; row ``i`` sees the same whatever is beside it."""
    sights = [np.random.default_rng(first + i).normal(0, 1, (1, 1, 4, 3)) for i in range(n_rows)]
    keys = np.concatenate(sights).astype(np.float32)
    seen = Seen({"cross_0_k": keys, "cross_0_v": keys}, np.ones((n_rows, 4), np.int64))
    return DecoderState(decoder, SIGNATURE, seen)
