"""Compare two computations of one model, and say what the comparison is worth.

A `Reference` and a candidate (a `Session`) in, a `Verdict` of three legs out: the values agree, the inputs
were able to show a difference, and the weights are the model's own. ``docs/verify.md`` explains.
"""

from anyport.verify.compare import compare
from anyport.verify.finding import Finding, Numbers
from anyport.verify.fingerprints import LazyArray
from anyport.verify.reference import (
    Answer,
    Floor,
    PartSpec,
    Reference,
    SessionReference,
    measure_floor,
    perturbation_floor,
)
from anyport.verify.replay import RecordedReference, verify_bundle
from anyport.verify.sizes import SweepSettings
from anyport.verify.sweep import CasePlan, describe_cases, plan_cases, typical_case
from anyport.verify.tolerance import MAX_ABS_MULTIPLE, RMS_MULTIPLE, Gates
from anyport.verify.verdict import Leg, Status, Verdict
from anyport.verify.weights import Accounted, Expected, WeightAccount, account_weights

__all__ = [
    "MAX_ABS_MULTIPLE",
    "RMS_MULTIPLE",
    "Accounted",
    "Answer",
    "CasePlan",
    "Expected",
    "Finding",
    "Floor",
    "Gates",
    "LazyArray",
    "Leg",
    "Numbers",
    "PartSpec",
    "RecordedReference",
    "Reference",
    "SessionReference",
    "Status",
    "SweepSettings",
    "Verdict",
    "WeightAccount",
    "account_weights",
    "compare",
    "describe_cases",
    "measure_floor",
    "perturbation_floor",
    "plan_cases",
    "typical_case",
    "verify_bundle",
]
