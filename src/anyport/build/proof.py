"""The answers that a verification recorded, as the proof a bundle carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.build.proving import Recorder
from anyport.bundle import Proof, ProofCase, ProofTolerance, RecordedFloor
from anyport.cases import Stored
from anyport.source import TorchReference
from anyport.verify import MAX_ABS_MULTIPLE, RMS_MULTIPLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.build.plan import BuildSettings
    from anyport.build.proving import Recorded
    from anyport.recipe import Part
    from anyport.verify import Reference

_MIN_SAMPLE: Final = 256


def recorder_of(
    part: Part, settings: BuildSettings, budget_bytes: int, reference: Reference | None = None
) -> Recorder:
    """Return a recorder of PyTorch's answers, under which every case of a part fits the budget.

    Where the outputs are large or many (the 24 tensors of a decoder's cache, over 84 cases), a sample of each
    is kept. Whole numbers are never sampled: which score an index was chosen by shows in the whole only.

    Args:
        part: That answers.
        settings: How many cases there are.
        budget_bytes: Of the arrays.
        reference: Who answers for it, if not the module with weights in memory.
    """
    outputs = part.signature.outputs
    # all of --max-cases, or the user's own in half of them and those that a verdict needs (verify/sweep.py)
    n_cases = max(settings.max_cases, (settings.max_cases + 1) // 2 + 3) + len(part.signature.inputs)
    element_bytes = sum(np.dtype(spec.dtype).itemsize for spec in outputs)
    is_sampled = all(spec.is_float for spec in outputs)
    # half of it: the other half is for the inputs that users give
    limit = max(_MIN_SAMPLE, budget_bytes // 2 // (n_cases * element_bytes)) if is_sampled else None
    return Recorder(reference or TorchReference(part), budget_bytes, limit)


def proof_of(recorders: Mapping[str, Recorder]) -> tuple[Proof, dict[str, np.ndarray]]:
    """Return the proof and its arrays.

    Args:
        recorders: By part, after the comparison.
    """
    arrays: dict[str, np.ndarray] = {}
    parts = {
        part: [_proof_case(part, recorded, arrays) for recorded in recorder.recorded]
        for part, recorder in recorders.items()
    }
    omitted = [f"{part}: {name}" for part, recorder in recorders.items() for name in recorder.omitted]
    tolerance = ProofTolerance(max_abs_multiple=MAX_ABS_MULTIPLE, rms_multiple=RMS_MULTIPLE)
    return Proof(parts=parts, tolerance=tolerance, omitted=omitted), arrays


def _proof_case(part: str, recorded: Recorded, arrays: dict[str, np.ndarray]) -> ProofCase:
    case, answer = recorded.case, recorded.answer
    outputs: dict[str, str] = {}
    for name, array in answer.outputs.items():
        outputs[name] = f"{part}/{case.name}/{name}"
        arrays[outputs[name]] = np.ascontiguousarray(array)
    # two parts may have given cases of one name
    for key, array in case.stored.items():
        arrays[f"{part}/{key}"] = np.ascontiguousarray(array)
    fills = {n: Stored(f"{part}/{f.key}") if isinstance(f, Stored) else f for n, f in case.fills.items()}
    return ProofCase(
        name=case.name,
        kind=case.kind,
        sizes=dict(case.sizes),
        fills=fills,
        outputs=outputs,
        floors={n: RecordedFloor(f.max_abs, f.rms, f.how) for n, f in answer.floors.items()},
        shapes={name: list(shape) for name, shape in recorded.shapes.items()},
    )
