"""`TorchSession`: a module as a session; `TorchReference`: its answers and how exact they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from anyport.errors import SourceError
from anyport.source.adapter import Adapter, tensors_from
from anyport.source.float64 import NoTwinError, run_in_float64
from anyport.source.lines import first_line, user_line_of
from anyport.tensors import check_feeds
from anyport.verify import Answer, Floor, measure_floor, perturbation_floor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from anyport.cases import Case
    from anyport.recipe import Part
    from anyport.tensors import TensorSpec


class TorchSession:
    """A part run by PyTorch, eager, in its own float type."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._adapter = Adapter(part)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the part takes."""
        return self._part.signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the part answers."""
        return self._part.signature.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return output name -> array.

        Raises:
            InputError: The feeds do not fit the signature.
            SourceError: The module itself fails, or answers another shape or type than declared.
        """
        sizes = check_feeds(feeds, self.inputs, self._part.signature.dims)
        tensors = tensors_from([feeds[spec.name] for spec in self.inputs])
        try:
            with torch.no_grad():
                outputs = self._adapter(*tensors)
        except SourceError:
            raise
        except Exception as err:
            raise SourceError(
                f"PyTorch itself fails on {_sizes_text(sizes)}: {first_line(err)}",
                where=user_line_of(err),
                do="declare the sizes the model takes under [dims], the values under [inputs]",
            ) from err
        return self._named(outputs, sizes)

    def run_float64(self, feeds: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
        """Return the answers of the float64 twin, and how they were found.

        Raises:
            NoTwinError: The module has no float64 twin.
        """
        tensors = tensors_from([feeds[spec.name] for spec in self.inputs])
        outputs, how = run_in_float64(self._adapter, tensors)
        return {s.name: o.numpy() for s, o in zip(self.outputs, outputs, strict=True)}, how

    def close(self) -> None:
        """Nothing is held beyond the module."""

    def _named(self, outputs: tuple[Tensor, ...], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        named: dict[str, np.ndarray] = {}
        for spec, output in zip(self.outputs, outputs, strict=True):
            array = output.detach().to("cpu").numpy()
            _check_output(spec, array, dict(sizes))
            named[spec.name] = array
        return named


def _check_output(spec: TensorSpec, array: np.ndarray, sizes: dict[str, int]) -> None:
    if str(array.dtype) != spec.dtype or array.ndim != len(spec.axes):
        raise SourceError(
            f"output '{spec.name}' is {array.dtype}{list(array.shape)}, declared as {spec}",
            do="correct it under [outputs]",
        )
    for place, (axis, size) in enumerate(zip(spec.axes, array.shape, strict=True)):
        if axis.names <= set(sizes) and axis.size(sizes) != size:
            raise SourceError(
                f"output '{spec.name}' has size {size} at axis {place}, declared as {axis} = "
                f"{axis.size(sizes)}",
                where=_sizes_text(sizes),
                do="correct it under [outputs]",
            )


def _sizes_text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items()) or "its inputs"


class TorchReference:
    """The answers a candidate is held against: float64, rounded to the output's type, with their floor.

    Args:
        part: That answers.
        session: How it is run, where not as `TorchSession` does.
    """

    def __init__(self, part: Part, session: TorchSession | None = None) -> None:
        self._session = TorchSession(part) if session is None else session

    def answer(self, case: Case) -> Answer:
        """Return PyTorch's answer to one case and how far its own float32 is from it."""
        feeds = case.arrays(self._session.inputs)
        single = self._session.run(feeds)
        try:
            double, how = self._session.run_float64(feeds)
        except NoTwinError as err:
            return self._answer_without_twin(feeds, single, str(err))
        outputs: dict[str, np.ndarray] = {}
        floors: dict[str, Floor] = {}
        for name, array in single.items():
            # the proof keeps the rounded answer, so the live comparison uses the same one
            outputs[name] = double[name].astype(array.dtype)
            if np.issubdtype(array.dtype, np.floating):
                floors[name] = measure_floor(array, double[name], how)
        return Answer(outputs, floors)

    def _answer_without_twin(
        self, feeds: Mapping[str, np.ndarray], single: dict[str, np.ndarray], why: str
    ) -> Answer:
        found = perturbation_floor(self._session.run, feeds, self._session.inputs)
        reason = why.splitlines()[0] if why else "unknown"
        floors = {n: Floor(f.max_abs, f.rms, f"{f.how}; no float64 twin: {reason}") for n, f in found.items()}
        return Answer(single, floors)
