"""A model of two outputs, and lossy copies of it that are off by a given noise."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from anyport.tensors import Signature, dim, tensor
from anyport.verify import Recording, choose_metrics, record
from tests.verify.fakes import FunctionSession

if TYPE_CHECKING:
    from collections.abc import Iterator

Feeds = Mapping[str, np.ndarray]

SIGNATURE = Signature(
    (tensor("x", "float32[batch, 8]"),),
    (tensor("logits", "float32[batch, 10]"), tensor("embedding", "float32[batch, 8]")),
    {"batch": dim("batch", "1..64")},
)
WEIGHTS = np.random.default_rng(1).normal(size=(8, 10)).astype(np.float32)


def exact(feeds: Feeds) -> dict[str, np.ndarray]:
    return {"logits": feeds["x"] @ WEIGHTS, "embedding": feeds["x"] * np.float32(2)}


def noisy(logits: float = 0.0, embedding: float = 0.0) -> FunctionSession:
    """Return the model with noise on its outputs; the same feeds give the same noise."""

    def run(feeds: Feeds) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(zlib.crc32(feeds["x"].tobytes()))
        noise = {"logits": logits, "embedding": embedding}
        return {
            name: (array + noise[name] * rng.normal(size=array.shape)).astype(np.float32)
            for name, array in exact(feeds).items()
        }

    return session(run)


def session(function: object) -> FunctionSession:
    return FunctionSession(function, SIGNATURE.inputs, SIGNATURE.outputs)  # type: ignore[arg-type]


def samples(n: int = 128, batch: int = 1, scale: float = 1.0) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    for _ in range(n):
        yield {"x": (scale * rng.normal(size=(batch, 8))).astype(np.float32)}


def recording(n: int = 128, batch: int = 1) -> Recording:
    return record(session(exact), samples(n, batch), SIGNATURE, choose_metrics(None, SIGNATURE.outputs))
