"""What is recorded for the proof of a lossy variant."""

from __future__ import annotations

import numpy as np
import pytest

from anyport.errors import InputError, MismatchError
from anyport.verify import (
    MIN_SAMPLES,
    RecordSettings,
    Status,
    UserMetric,
    choose_metrics,
    evaluate,
    record,
)
from anyport.verify.narrowing import Widened
from anyport.verify.recording import MAX_SAMPLES, n_recorded, samples_in
from tests.verify.fakes import FunctionSession
from tests.verify.lossy_examples import SIGNATURE, exact, noisy, recording, samples, session

METRICS = choose_metrics(None, SIGNATURE.outputs)


def taken(n: int, batch: int = 1, settings: RecordSettings | None = None) -> int:
    found = record(session(exact), samples(n, batch), SIGNATURE, METRICS, settings)
    return sum(samples_in(run, SIGNATURE) for run in found.runs)


def test_as_many_samples_as_there_is_room_for() -> None:
    assert taken(300) == MAX_SAMPLES
    assert taken(70, 8) == MAX_SAMPLES
    assert taken(10) == 10
    one_bytes = 2 * (8 + 10 + 8)
    assert taken(300, 1, RecordSettings(budget_bytes=100 * one_bytes)) == 100
    assert taken(300, 1, RecordSettings(budget_bytes=1)) == MIN_SAMPLES
    with pytest.raises(InputError) as err:
        taken(300, 1, RecordSettings(budget_bytes=1, most_bytes=20 * one_bytes))
    assert err.value.what == "21 samples take 1092 bytes, a bundle carries 1040 at most"
    assert err.value.do == "give smaller samples: 64 are needed"


@pytest.mark.parametrize(("budget_bytes", "n"), [(1, MIN_SAMPLES), (100 * 52, 100), (10**9, MAX_SAMPLES)])
def test_how_many_fit_is_known_from_one(budget_bytes: int, n: int) -> None:
    settings = RecordSettings(budget_bytes=budget_bytes)
    assert n_recorded(session(exact), next(samples(1)), SIGNATURE, settings) == n
    assert taken(300, 1, settings) == n


def test_no_sample_is_asked_for_that_is_not_used() -> None:
    stream = samples(300)
    record(session(exact), stream, SIGNATURE, METRICS)
    assert sum(1 for _ in stream) == 300 - MAX_SAMPLES - 1


def test_the_model_answers_what_is_stored() -> None:
    for run in recording(3).runs:
        assert isinstance(run.feeds, Widened)
        assert run.feeds.stored("x").dtype == np.float16
        assert run.feeds["x"].dtype == np.float32
        np.testing.assert_allclose(run.answers["logits"], exact(run.feeds)["logits"], rtol=1e-3, atol=1e-3)


def test_samples_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="input 'x' has size 3"):
        record(session(exact), [{"x": np.zeros((1, 3), np.float32)}], SIGNATURE, METRICS)
    mute = FunctionSession(lambda _: {}, SIGNATURE.inputs, SIGNATURE.outputs)
    with pytest.raises(MismatchError, match="the reference does not answer the output 'logits'"):
        record(mute, samples(1), SIGNATURE, METRICS)


def test_the_build_keeps_a_fifth_in_hand() -> None:
    assert evaluate(recording(), noisy()).measures[0].text.endswith("96 % needed")


def test_a_user_metric_decides_and_moves_the_limits() -> None:
    lossy = noisy(logits=0.3)
    assert evaluate(recording(), lossy).status is Status.FAIL
    user = UserMetric("evaluate.py:accuracy", lambda _: 0.0)
    found = evaluate(recording(), lossy, user.compare(0.99, 0.99))
    assert found.passed
    assert found.line() == "accuracy 99 % -> 99 %"
    assert [one.output for one in found.measures] == ["", "logits", "embedding"]
    assert 0.8 <= found.measures[1].allowance < found.measures[1].value < 0.95
    assert found.measures[2].allowance == 0.98


def test_a_user_metric_does_not_save_what_nobody_could_check() -> None:
    user = UserMetric("evaluate.py:accuracy", lambda _: 0.0).compare(0.99, 0.99)
    found = evaluate(recording(), noisy(logits=5.0), user)
    assert found.status is Status.FAIL
    assert "'logits' top-1 agreement" in found.line()


def test_a_user_metric_that_fails_decides_too() -> None:
    user = UserMetric("evaluate.py:accuracy", lambda _: 0.0).compare(0.99, 0.9)
    found = evaluate(recording(), noisy(), user)
    assert found.status is Status.FAIL
    assert found.line() == "accuracy 99 % -> 90 %: a drop of 0.09, allowed 0.005"
