from __future__ import annotations

from pathlib import Path

from anyport.compress.candidate import Candidate, Unmade, best_of, final_trial, refusal
from anyport.compress.gates import GraphFacts
from anyport.compress.methods import Int8Dynamic, Int8Static, Method
from anyport.compress.quantizing import Quantized
from anyport.errors import CompressError
from anyport.verify import UserMetric

METRIC = UserMetric("evaluate.py:accuracy", lambda _run: 0.0, 0.1)


def candidate(method: Method, ratio: float, lossy: float | None = None, **words: object) -> Candidate:
    quantized = Quantized(method, Path("x.onnx"), {"MatMul": 1}, 1, 10, ())
    evaluation = None if lossy is None else METRIC.compare(1.0, lossy)
    return Candidate(method, quantized, GraphFacts({"MatMul": 1}, 10, {8: 5}), ratio, evaluation, **words)  # type: ignore[arg-type]


def test_of_those_that_passed_the_best_answers_win() -> None:
    quick, good = candidate(Int8Static(), 2.02, 0.95), candidate(Int8Static("s8"), 2.0, 0.99)
    behind = candidate(Int8Dynamic(), 1.2)
    assert best_of([quick, good, behind]) is good
    assert best_of([behind]) is None
    assert (final_trial(good, good).status, final_trial(good, good).reason) == ("kept", "")
    assert final_trial(quick, good).reason == "int8-static:s8s8 answers better"
    assert final_trial(behind, good).reason == "int8-static:s8s8 is better"
    assert final_trial(behind, good).status == "behind"


def test_the_error_is_of_the_one_that_got_furthest() -> None:
    idle = candidate(Int8Dynamic(), 0.0, status="nothing", error=CompressError("a did nothing", where="here"))
    slow = candidate(Int8Static("s8"), 0.8, status="slower", error=CompressError("b is slow", do="wait"))
    worse = candidate(Int8Static(), 2.0, 0.5, status="worse", error=CompressError("c is wrong", do="help"))
    assert str(refusal([idle, worse, slow])) == "c is wrong\n  where: a did nothing; b is slow\n  do:    help"
    assert str(refusal([idle])) == "a did nothing\n  where: here"
    unmade = Unmade(Int8Dynamic("u8"), CompressError("d cannot be made"))
    assert refusal([unmade, slow]).what == "b is slow"
    assert refusal([idle, unmade]).what == "d cannot be made"
    assert final_trial(unmade, slow).status == "failed"
    assert final_trial(unmade, slow).reason == "d cannot be made"
    assert refusal([]).what == "there is no method to try on this model"
    assert best_of([idle, worse, slow]) is None
