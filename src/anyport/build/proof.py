"""The answers that a verification recorded, as the proof a bundle carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from anyport.bundle import Proof, ProofCase, ProofTolerance, RecordedFloor
from anyport.cases import Stored
from anyport.verify import MAX_ABS_MULTIPLE, RMS_MULTIPLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.build.proving import Recorder
    from anyport.cases import Case
    from anyport.verify import Answer


def proof_of(recorders: Mapping[str, Recorder]) -> tuple[Proof, dict[str, np.ndarray]]:
    """Return the proof and its arrays.

    Args:
        recorders: By part, after the comparison.
    """
    arrays: dict[str, np.ndarray] = {}
    parts = {
        part: [_proof_case(part, case, answer, arrays) for case, answer in recorder.kept]
        for part, recorder in recorders.items()
    }
    omitted = [f"{part}: {name}" for part, recorder in recorders.items() for name in recorder.omitted]
    tolerance = ProofTolerance(max_abs_multiple=MAX_ABS_MULTIPLE, rms_multiple=RMS_MULTIPLE)
    return Proof(parts=parts, tolerance=tolerance, omitted=omitted), arrays


def _proof_case(part: str, case: Case, answer: Answer, arrays: dict[str, np.ndarray]) -> ProofCase:
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
    )
