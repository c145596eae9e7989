"""How often a whole task runs each part, and at which sizes: it is run on graphs that compute nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anyport.build.description import laid_over
from anyport.task.graphs import OpenGraphs
from anyport.task.rehearsals import rehearse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.recipe import Model
    from anyport.tensors import Signature, TensorSpec

    Sizes = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class TaskRuns:
    """What a task runs to answer the requests of its proof.

    Attributes:
        n_requests: How many there are.
        proof_bytes: Of the requests and the answers, as they are recorded.
        counts: Part and sizes of its named axes -> how often it runs so.
    """

    n_requests: int
    proof_bytes: int
    counts: Mapping[tuple[str, Sizes], int]


def task_runs(model: Model, settings: Mapping[str, Any]) -> TaskRuns:
    """Rehearse the requests of a model; its modules are not run.

    Args:
        model: With requests.
        settings: Of the user's, laid over the model's.
    """
    counts: Counter[tuple[str, Sizes]] = Counter()
    sessions = {part.name: _Hollow(part.name, part.signature, counts) for part in model.parts}
    signatures = {part.name: part.signature for part in model.parts}
    words = laid_over(model.settings, settings)
    graphs = OpenGraphs(model.task, words, signatures, sessions, model.assets.__getitem__)
    n_bytes, between = 0, 0
    requests = list(model.task_requests() if model.task_requests else ())
    for request in requests:
        answer = rehearse(graphs, request)
        arrays = (*request.pictures, *request.arrays.values(), answer.picture)
        n_bytes += sum(array.nbytes for array in arrays)
        between = between or sum(array.nbytes for array in answer.between.values())  # the first one's is kept
    return TaskRuns(len(requests), n_bytes + between, counts)


class _Hollow:
    """A session that answers ones of the right shape, and counts its runs by their sizes."""

    def __init__(self, part: str, signature: Signature, counts: Counter[tuple[str, Sizes]]) -> None:
        self._part, self._counts = part, counts
        self.inputs: tuple[TensorSpec, ...] = signature.inputs
        self.outputs: tuple[TensorSpec, ...] = signature.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            shape = feeds[spec.name].shape
            sizes |= {name: shape[axis] for axis, name in spec.dynamic_axes().items()}
        self._counts[self._part, tuple(sorted(sizes.items()))] += 1
        return {spec.name: np.ones(spec.shape(sizes), np.dtype(spec.dtype)) for spec in self.outputs}

    def close(self) -> None:
        """Do nothing."""
