"""The judgement on one output: the two multiples, and the words for it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anyport.cases import Case, Normal
from anyport.tensors import tensor
from anyport.verify import Answer, CasePlan, Floor, PartSpec, Verdict, compare
from anyport.verify.judging import figure
from tests.verify.fakes import Feeds, FunctionSession, f32


def error_of(n: int, error: np.ndarray) -> Verdict:
    x, y = (tensor("x", f"float32[{n}]"),), (tensor("y", f"float32[{n}]"),)

    class Exact:
        def answer(self, case: Case) -> Answer:
            return Answer({"y": case.arrays(x)["x"] * 0}, {"y": Floor(1.0, 1.0, "given")})

    cases = (Case("one", "random", {}, {"x": Normal(1)}, {}),)
    candidate = FunctionSession(lambda _: {"y": f32(error)}, x, y)
    return compare(Exact(), candidate, CasePlan(cases, ()), PartSpec("net", "fp32", x, y))


@pytest.mark.parametrize(
    ("n", "error", "words"),
    [
        (4, [8.0, 0, 0, 0], ""),
        (4, [8.001, 0, 0, 0], "output 'y' is off by 8.0e0, allowed 8.0e0"),
        (4, [7.0, 7, 7, 7], ""),  # the RMS of four numbers is luck
        (32, [4.0] * 32, ""),
        (32, [4.1] * 32, "output 'y' has an RMS error of 4.1e0, allowed 4.0e0"),
        (32, [0.0] * 31 + [8.1], "output 'y' is off by 8.1e0, allowed 8.0e0"),
    ],
)
def test_the_multiples(n: int, error: list[float], words: str) -> None:
    finding = error_of(n, np.array(error)).findings[0]
    assert (finding.passed, finding.reason) == (not words, words)
    assert (finding.used > 1) == bool(words)


def test_what_cannot_be_compared_comes_before_what_is_off_and_that_before_whole_numbers() -> None:
    inputs = (tensor("x", "float32[4]"),)
    outputs = (tensor("off", "float32[4]"), tensor("count", "int64[1]"), tensor("shape", "float32[4]"))

    class Exact:
        def answer(self, _: Case) -> Answer:
            floor = Floor(1.0, 1.0, "given")
            zeros = np.zeros(4, np.float32)
            return Answer(
                {"off": zeros, "count": np.array([7]), "shape": zeros}, {"off": floor, "shape": floor}
            )

    def run(_: Feeds) -> dict[str, np.ndarray]:
        return {"off": f32([9, 0, 0, 0]), "count": np.array([8]), "shape": f32([0])}

    cases = (Case("one", "random", {}, {"x": Normal(1)}, {}),)
    part = PartSpec("net", "fp32", inputs, outputs)
    verdict = compare(Exact(), FunctionSession(run, inputs, outputs), CasePlan(cases, ()), part)
    rows = [line for line in verdict.table().splitlines() if line.startswith("FAIL")]
    assert [row.split(",")[0].split()[-1] for row in rows] == ["shape", "off", "count"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.031, "3.1e-2"), (1.2e-5, "1.2e-5"), (0.0, "0.0e0"), (12345.0, "1.2e4"), (math.inf, "inf")],
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text
