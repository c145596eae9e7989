from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.tensors import Signature, tensor
from anyport.verify import CosineSimilarity, Status
from anyport.verify.twins import TwinSession
from tests.verify.fakes import FunctionSession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SIGNATURE = Signature(
    (tensor("x", "float32[batch, 4]"), tensor("attention_mask", "int64[batch, 4] 0..1")),
    (
        tensor("states", "float32[batch, 4, 3]"),
        tensor("pair", "float32[batch, 2]"),
        tensor("best", "int64[batch, 9]"),
    ),
)


def answer(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    x = feeds["x"]
    states = np.stack([x, x + 1, x * 2], axis=2)
    return {"states": states, "pair": x[:, :2], "best": np.zeros((len(x), 9), np.int64)}


def session(change: Callable[[np.ndarray], np.ndarray] = lambda a: a) -> FunctionSession:
    def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = answer(feeds)
        return found | {"states": change(found["states"])}

    return FunctionSession(run, SIGNATURE.inputs, SIGNATURE.outputs)


def feeds(seed: int, n_real: int = 4) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(2, 4)).astype(np.float32)
    mask = np.zeros((2, 4), np.int64)
    mask[:, :n_real] = 1
    return {"x": x, "attention_mask": mask}


def measured(change: Callable[[np.ndarray], np.ndarray], n_runs: int = 70, n_real: int = 4) -> TwinSession:
    twin = TwinSession(session(), session(change), SIGNATURE)
    for seed in range(n_runs):
        twin.run(feeds(seed, n_real))
    return twin


def test_the_candidate_answers_and_only_directions_are_judged() -> None:
    twin = TwinSession(session(), session(lambda a: a * 3), SIGNATURE)
    assert twin.run(feeds(0))["states"].sum() == pytest.approx(3 * answer(feeds(0))["states"].sum())
    assert (twin.inputs, twin.outputs) == (SIGNATURE.inputs, SIGNATURE.outputs)
    twin.close()
    [one] = measured(lambda a: a * 3).measures("part", {}, 0.8)
    assert (one.output, one.status, one.losses) == ("part/states", Status.PASS, None)
    assert one.text == "cosine similarity 1.00000 over 70 samples, 0.98400 needed"


def test_other_directions_fail() -> None:
    [one] = measured(lambda a: a[..., ::-1].copy()).measures("part", {}, 0.8)
    assert one.status is Status.FAIL
    assert one.reason == "it answers too differently"


def test_one_lost_answer_among_many_good_ones_fails() -> None:
    lost = iter([True] + [False] * 199)
    [one] = measured(lambda a: -a if next(lost) else a, 200).measures("part", {}, 0.8)
    assert one.status is Status.FAIL
    assert one.reason.startswith("one answer is lost: sample 1 has -1.00000")


def test_padding_does_not_count() -> None:
    def change(states: np.ndarray) -> np.ndarray:
        changed = states.copy()
        changed[:, 3] *= -1
        return changed

    assert measured(change, n_real=4).measures("part", {}, 0.8)[0].status is Status.FAIL
    assert measured(change, n_real=3).measures("part", {}, 0.8)[0].status is Status.PASS


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a[:, :2], "it is float32[2, 2, 3], must be float32[2, 4, 3]"),
        (lambda a: a.astype(np.float64), "it is float64[2, 4, 3], must be float32[2, 4, 3]"),
        (lambda a: a * np.float32(np.nan), "it is NaN or infinite"),
    ],
)
def test_answers_of_another_form_fail(change: Callable[[np.ndarray], np.ndarray], reason: str) -> None:
    [one] = measured(change).measures("part", {}, 0.8)
    assert (one.status, one.reason) == (Status.FAIL, reason)


def test_few_runs_say_too_little_and_a_limit_may_be_given() -> None:
    limits = {"states": CosineSimilarity(least=0.99)}
    [one] = measured(lambda a: a, 10).measures("part", limits, 1.0)
    assert one.status is Status.INCONCLUSIVE
    assert one.allowance == 0.99
