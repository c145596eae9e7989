"""A user's function decides."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anyport.errors import SourceError, UsageError
from anyport.verify import Status, UserMetric
from tests.verify.fakes import f32


@pytest.mark.parametrize(
    ("exact", "lossy", "max_drop", "status", "line"),
    [
        (0.989, 0.989, 0.005, Status.PASS, "accuracy 98.9 % -> 98.9 %"),
        (0.989, 0.984, 0.005, Status.PASS, "accuracy 98.9 % -> 98.4 %"),
        (0.9, 0.95, 0.0, Status.PASS, "accuracy 90 % -> 95 %"),
        (0.989, 0.983, 0.005, Status.FAIL, "accuracy 98.9 % -> 98.3 %: a drop of 0.006, allowed 0.005"),
        (31.5, 30.0, 1.0, Status.FAIL, "accuracy 31.5 -> 30: a drop of 1.5, allowed 1"),
    ],
)
def test_the_drop_is_judged(exact: float, lossy: float, max_drop: float, status: Status, line: str) -> None:
    evaluation = UserMetric("evaluate.py:accuracy", lambda _: 0.0, max_drop).compare(exact, lossy)
    assert (evaluation.status, evaluation.line()) == (status, line)
    assert evaluation.to_json()["measures"][0]["metric"] == "evaluate.py:accuracy"


def test_the_function_runs_the_graph() -> None:
    user = UserMetric("evaluate.py:mean_score", lambda run: run({"x": f32([1, 2])})["y"].mean())
    assert user.measure(lambda feeds: {"y": feeds["x"] * 2}) == 3.0
    assert user.name == "mean score"


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (math.nan, "'evaluate.py:f' returns nan, not a number"),
        (None, "'evaluate.py:f' returns None, not a number"),
        (np.zeros(2), "'evaluate.py:f' returns array([0., 0.]), not a number"),
    ],
)
def test_no_number_is_refused(returned: object, text: str) -> None:
    with pytest.raises(SourceError) as err:
        UserMetric("evaluate.py:f", lambda _: returned).measure(dict)  # type: ignore[arg-type,return-value]
    assert err.value.what == text


def test_a_failing_function_is_named() -> None:
    def fail(_: object) -> float:
        raise KeyError("logit")

    with pytest.raises(SourceError, match=r"^'evaluate.py:f' fails: KeyError: 'logit'"):
        UserMetric("evaluate.py:f", fail).measure(dict)


def test_a_function_that_never_runs_the_model_measures_nothing() -> None:
    with pytest.raises(SourceError) as err:
        UserMetric("evaluate.py:accuracy", lambda _: 0.9).measure(dict)
    assert err.value.what == "'evaluate.py:accuracy' never runs the model"
    assert err.value.do == "call its argument: outputs = run({'input': array})"


@pytest.mark.parametrize("max_drop", [-0.1, math.nan, math.inf])
def test_a_drop_is_a_number_from_zero_on(max_drop: float) -> None:
    with pytest.raises(UsageError, match="is no limit"):
        UserMetric("evaluate.py:f", lambda _: 0.0, max_drop)
