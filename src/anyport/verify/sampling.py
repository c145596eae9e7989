"""Answers of which a proof keeps a sample: a session that samples its own in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyport.bundle.proof import sample_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from anyport.bundle.proof import ProofCase
    from anyport.runtime.session import Session
    from anyport.tensors import TensorSpec


class SampledSession:
    """A session whose outputs are sampled where the recorded answers are.

    An output of another shape than recorded stays whole, and so differs from the record.

    Args:
        session: Closed with this one.
        cases: The recorded runs of the part.
        arrays: The recorded arrays by key.
    """

    def __init__(
        self, session: Session, cases: Iterable[ProofCase], arrays: Mapping[str, np.ndarray]
    ) -> None:
        self._session = session
        self._sizes: dict[tuple[str, tuple[int, ...]], int] = {}
        for case in cases:
            for name, shape in case.shapes.items():
                key = (name, tuple(shape))
                if key not in self._sizes:
                    self._sizes[key] = arrays[case.outputs[name]].size

    @property
    def whole(self) -> Session:
        """The session itself, whose answers are whole."""
        return self._session

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` takes."""
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` gives, before they are sampled."""
        return self._session.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute every output, and sample those that are recorded so."""
        found = self._session.run(feeds)
        sizes = {name: self._sizes.get((name, array.shape)) for name, array in found.items()}
        return {
            name: array if (n := sizes[name]) is None else sample_of(array, n)
            for name, array in found.items()
        }

    def close(self) -> None:
        """Close the session."""
        self._session.close()
