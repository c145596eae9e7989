"""A lossy graph is judged by what it answers to samples."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.errors import MismatchError
from anyport.tensors import Signature, tensor
from anyport.verify import (
    BUILD_SHARE,
    MIN_SAMPLES,
    CosineSimilarity,
    Evaluation,
    Psnr,
    Recording,
    Run,
    Status,
    TopOneAgreement,
    measure_agreement,
)
from anyport.verify.agreement import Losses, judge, relaxed
from tests.verify.fakes import FunctionSession, f32
from tests.verify.lossy_examples import SIGNATURE, exact, noisy, recording, session

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyport.tensors import TensorSpec


@pytest.mark.parametrize(
    ("candidate", "status", "words"),
    [
        (noisy(), Status.PASS, ""),
        (noisy(0.02, 0.02), Status.PASS, ""),
        (noisy(logits=1.0), Status.FAIL, "'logits' top-1 agreement "),
        (noisy(embedding=1.0), Status.FAIL, "'embedding' cosine similarity "),
    ],
)
def test_each_output_is_held_to_its_metric(candidate: FunctionSession, status: Status, words: str) -> None:
    evaluation = measure_agreement(recording(), candidate)
    assert evaluation.status is status
    assert evaluation.passed == (status is Status.PASS)
    assert evaluation.line().startswith(words)
    assert [one.output for one in evaluation.measures] == ["logits", "embedding"]
    assert candidate.n_runs == 128


def test_a_line_says_what_was_found_and_needed() -> None:
    assert measure_agreement(recording(), noisy()).measures[0].line == (
        "'logits' top-1 agreement 100 % over 128 samples, 95 % needed"
    )
    with pytest.raises(MismatchError) as err:
        measure_agreement(recording(), noisy(logits=3.0), BUILD_SHARE).raise_if_bad("part network")
    assert err.value.what.endswith(" over 128 samples, 96 % needed: it answers too differently")
    assert err.value.where == "part network"
    assert err.value.do is not None
    assert err.value.do.startswith("calibrate with more typical samples")


def test_a_batch_is_as_many_samples_as_it_has_places() -> None:
    one, eight = measure_agreement(recording(128), noisy()), measure_agreement(recording(16, 8), noisy())
    assert one.n_samples == eight.n_samples == 128


def test_too_few_samples_prove_nothing() -> None:
    evaluation = measure_agreement(recording(MIN_SAMPLES - 1), noisy())
    assert evaluation.status is Status.INCONCLUSIVE
    assert evaluation.line().endswith("63 samples say too little, 64 are needed")
    with pytest.raises(MismatchError, match="^the metric is inconclusive: ") as err:
        evaluation.raise_if_bad()
    assert err.value.do is not None
    assert err.value.do.startswith("give more samples, of different kinds")
    evaluation.raise_if_bad(allow_inconclusive=True)
    # few samples are enough to see that a graph is wrong
    assert measure_agreement(recording(8), noisy(logits=30.0)).status is Status.FAIL


def test_answers_that_are_all_alike_prove_nothing() -> None:
    runs = [
        Run(run.feeds, {"logits": f32([[0] * 9 + [1]]), "embedding": f32([[1] * 8])})
        for run in recording().runs
    ]
    constant = Recording(SIGNATURE, recording().metrics, runs)
    evaluation = measure_agreement(constant, session(lambda _: dict(runs[0].answers)))
    assert evaluation.status is Status.INCONCLUSIVE
    assert evaluation.line().endswith("the exact answers to different samples are too much alike (1.00000)")


def test_a_constant_candidate_fails() -> None:
    constant = session(lambda _: {"logits": f32([[1] * 10]), "embedding": f32([[1] * 8])})
    assert [one.status for one in measure_agreement(recording(), constant).measures] == [Status.FAIL] * 2


def test_one_lost_answer_fails_although_the_mean_is_fine() -> None:
    lost = next(iter(recording().runs)).feeds["x"].tobytes()

    def run(feeds: Any) -> dict[str, np.ndarray]:
        answer = exact(feeds)
        return answer if feeds["x"].tobytes() != lost else {**answer, "embedding": -answer["embedding"]}

    evaluation = measure_agreement(recording(256), session(run))
    assert evaluation.deciding.value > evaluation.deciding.allowance
    assert evaluation.line().endswith("one answer is lost: sample 1 has -1.00000, each must have 0.80000")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda a: {"logits": a["logits"]}, "the graph has no such output"),
        (
            lambda a: {**a, "embedding": a["embedding"][:, :4]},
            "it is float32[1, 4], must be float32[1, 8]; run 1",
        ),
        (
            lambda a: {**a, "embedding": a["embedding"].astype(np.float16)},
            "it is float16[1, 8], must be float32[1, 8]; run 1",
        ),
        (
            lambda a: {**a, "embedding": a["embedding"] * np.nan},
            "8 of 8 elements are NaN or infinite in run 1",
        ),
        (
            lambda a: {**a, "embedding": a["embedding"] * np.inf},
            "8 of 8 elements are NaN or infinite in run 1",
        ),
    ],
)
def test_what_cannot_be_measured_fails(
    wrong: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], text: str
) -> None:
    evaluation = measure_agreement(recording(), session(lambda feeds: wrong(exact(feeds))))
    assert evaluation.status is Status.FAIL
    assert evaluation.deciding.reason == text


def test_an_exact_answer_must_be_a_number() -> None:
    for value, is_refused in ((np.nan, True), (-np.inf, False)):
        spec = tensor("logits", "float32[batch, 3]")
        signature = Signature(SIGNATURE.inputs, (spec,), SIGNATURE.dims)
        answers = {"logits": f32([[value, 1, 2]])}
        feeds = {"x": f32([[0] * 8])}
        held = Recording(signature, {"logits": TopOneAgreement()}, [Run(feeds, answers)])
        if is_refused:
            with pytest.raises(MismatchError, match="the exact answer 'logits' is NaN or infinite in run 1"):
                measure_agreement(held, session(lambda _, a=answers: a))
        else:
            assert measure_agreement(held, session(lambda _, a=answers: a)).value == 1.0


def _sequences(garbage: float) -> tuple[Recording, FunctionSession]:
    """Sequences of different lengths; behind the mask the candidate answers ``garbage``."""
    mask = tensor("attention_mask", "int64[batch, sequence] 0..1")
    ids: TensorSpec = tensor("ids", "int64[batch, sequence] 0..99")
    signature = Signature((ids, mask), (tensor("states", "float32[batch, sequence, 4]"),))
    rng, table = np.random.default_rng(0), np.random.default_rng(1).normal(size=(100, 4)).astype(np.float32)
    runs = []
    for _ in range(80):
        n = int(rng.integers(3, 9))
        feeds = {
            "ids": rng.integers(0, 100, (1, n)),
            "attention_mask": (np.arange(n) < n - 2)[None].astype(np.int64),
        }
        runs.append(Run(feeds, {"states": table[feeds["ids"]]}))

    def run(feeds: Any) -> dict[str, np.ndarray]:
        real = feeds["attention_mask"][..., None] == 1
        return {"states": np.where(real, table[feeds["ids"]], np.float32(garbage))}

    candidate = FunctionSession(run, signature.inputs, signature.outputs)
    return Recording(signature, {"states": CosineSimilarity()}, runs), candidate


@pytest.mark.parametrize("garbage", [-1000.0, np.nan])
def test_padding_does_not_count(garbage: float) -> None:
    held, candidate = _sequences(garbage)
    assert measure_agreement(held, candidate).passed
    unmasked = Recording(
        Signature(
            tuple(replace(s, name=s.name.replace("mask", "kind")) for s in held.signature.inputs),
            held.signature.outputs,
        ),
        held.metrics,
        [Run({n.replace("mask", "kind"): a for n, a in run.feeds.items()}, run.answers) for run in held.runs],
    )
    told = FunctionSession(lambda f: candidate.run({n.replace("kind", "mask"): a for n, a in f.items()}))
    assert measure_agreement(unmasked, told).status is Status.FAIL


def test_the_peak_of_pictures_is_that_of_all_exact_answers() -> None:
    signature = Signature((tensor("x", "float32[n, 1]"),), (tensor("y", "float32[n, 1]"),))
    runs = [Run({"x": f32([[i]])}, {"y": f32([[i]])}) for i in range(101)]
    held = Recording(signature, {"y": Psnr()}, runs)
    off_by_one = FunctionSession(lambda feeds: {"y": feeds["x"] + np.float32(1)})
    assert measure_agreement(held, off_by_one).value == pytest.approx(40.0)


LOSSES = Losses(n_samples=100, mean=0.05, worst=0.1, worst_sample=3, contrast=0.9)


@pytest.mark.parametrize(
    ("change", "share", "status"),
    [
        ({}, 1.0, Status.PASS),  # 5 of 100 are exactly what is allowed
        ({}, BUILD_SHARE, Status.FAIL),
        ({"mean": 0.04}, BUILD_SHARE, Status.PASS),
        ({"mean": 0.0501}, 1.0, Status.FAIL),
        ({"contrast": 0.21}, 1.0, Status.PASS),
        ({"contrast": 0.19}, 1.0, Status.INCONCLUSIVE),
        ({"n_samples": 63}, 1.0, Status.INCONCLUSIVE),
        ({"n_samples": 0, "mean": 0.0}, 1.0, Status.INCONCLUSIVE),
    ],
)
def test_judgements_at_the_limits(change: dict[str, Any], share: float, status: Status) -> None:
    assert judge("y", TopOneAgreement(), replace(LOSSES, **change), share).status is status


def test_a_perfect_limit_can_be_asked_for() -> None:
    metric = TopOneAgreement(least=1.0)
    assert judge("y", metric, replace(LOSSES, mean=0.0, worst=0.0), 1.0).status is Status.PASS
    measure = judge("y", metric, LOSSES, 1.0)
    assert (measure.status, measure.used) == (Status.FAIL, math.inf)


@pytest.mark.parametrize(("mean", "passes"), [(0.06, True), (0.159, True), (0.17, False)])
def test_a_limit_moves_to_what_is_reached_and_no_further_than_the_laxest(mean: float, passes: bool) -> None:
    metrics = {"y": TopOneAgreement()}
    failed = judge("y", metrics["y"], replace(LOSSES, mean=mean), BUILD_SHARE)
    [moved] = relaxed(Evaluation((failed,)), metrics, BUILD_SHARE).measures
    assert moved.status is (Status.PASS if passes else Status.FAIL)
    assert moved.allowance == pytest.approx(max(1 - mean / BUILD_SHARE, 0.8))
    assert (
        judge("y", replace(metrics["y"], least=moved.allowance), replace(LOSSES, mean=mean), 1.0).status
        is Status.PASS
    )


def test_json_has_every_figure() -> None:
    record = measure_agreement(recording(), noisy(0.02, 0.02)).to_json()
    assert record["status"] == "PASS"
    assert record["measures"][1].keys() == {
        "output", "metric", "value", "allowance", "n_samples", "status", "reason", "worst", "worst_sample",
        "between_samples",
    }  # fmt: skip
