"""A graph that is open on a runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from anyport.tensors import TensorSpec


@runtime_checkable
class Session(Protocol):
    """A graph opened on a runtime: named arrays in, named arrays out; nothing else.

    The same feeds give the same arrays again; a session keeps no state between runs.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` takes, in the order of the graph."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` gives, in the order of the graph."""
        ...

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute every output; the arrays given are not changed, those returned belong to the caller.

        Raises:
            InputError: A name, type or shape does not fit the inputs.
            SessionError: The runtime failed, or a limit it was opened with was reached.
        """
        ...

    def close(self) -> None:
        """Give back what the runtime holds; a second call does nothing."""
        ...
