"""Compare two computations of one model, and say what the comparison is worth.

A `Reference` and a candidate (a `Session`) in, a `Verdict` of three legs out: the values agree, the inputs
were able to show a difference, and the weights are the model's own. ``docs/verify.md`` explains.
"""

from anyport.verify.agreement import (
    BUILD_SHARE,
    MIN_SAMPLES,
    Evaluation,
    Measure,
    Recording,
    Run,
    measure_agreement,
)
from anyport.verify.compare import compare
from anyport.verify.finding import Finding, Numbers
from anyport.verify.fingerprints import LazyArray
from anyport.verify.lossy import Evaluated, metric_line, write_evaluated
from anyport.verify.metric import (
    METRICS,
    CosineSimilarity,
    Metric,
    Psnr,
    TopOneAgreement,
    choose_metrics,
    metric_from,
)
from anyport.verify.recording import RecordSettings, evaluate, record
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
from anyport.verify.usermetric import UserMetric
from anyport.verify.verdict import Leg, Status, Verdict
from anyport.verify.weights import Accounted, Expected, WeightAccount, account_weights

__all__ = [
    "BUILD_SHARE",
    "MAX_ABS_MULTIPLE",
    "METRICS",
    "MIN_SAMPLES",
    "RMS_MULTIPLE",
    "Accounted",
    "Answer",
    "CasePlan",
    "CosineSimilarity",
    "Evaluated",
    "Evaluation",
    "Expected",
    "Finding",
    "Floor",
    "Gates",
    "LazyArray",
    "Leg",
    "Measure",
    "Metric",
    "Numbers",
    "PartSpec",
    "Psnr",
    "RecordSettings",
    "RecordedReference",
    "Recording",
    "Reference",
    "Run",
    "SessionReference",
    "Status",
    "SweepSettings",
    "TopOneAgreement",
    "UserMetric",
    "Verdict",
    "WeightAccount",
    "account_weights",
    "choose_metrics",
    "compare",
    "describe_cases",
    "evaluate",
    "measure_agreement",
    "measure_floor",
    "metric_from",
    "metric_line",
    "perturbation_floor",
    "plan_cases",
    "record",
    "typical_case",
    "verify_bundle",
    "write_evaluated",
]
