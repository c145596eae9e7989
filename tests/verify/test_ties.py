"""Whole-number outputs that are the choice of a score."""

from __future__ import annotations

import numpy as np
import pytest

from anyport.cases import Case, Normal
from anyport.tensors import tensor
from anyport.verify import Answer, CasePlan, Floor, PartSpec, compare
from anyport.verify.ties import Link, largest_margin, possible_links, surviving_links
from tests.verify.fakes import FunctionSession, f32

SCORE = f32([[0.1, 0.9, 0.5], [0.7, 0.2, 0.3]])
X = (tensor("x", "float32[2, 3]"),)


@pytest.mark.parametrize(
    ("choice", "links"),
    [
        ([1, 0], {Link("choice", "score", 1, False)}),
        ([[1], [0]], {Link("choice", "score", 1, True)}),
        ([[1, 2], [0, 2]], {Link("choice", "score", 1, True)}),  # top-2, sorted
        ([[2, 1], [2, 0]], set()),  # the same two, unsorted
        ([[1, 1], [0, 0]], set()),
        ([1, 0, 0], {Link("choice", "score", 0, False)}),
        ([[1, 0, 0]], {Link("choice", "score", 0, True)}),
        ([1, 1], set()),
        ([1, 3], set()),
        ([-2, 0], set()),
        (1, set()),
    ],
)
def test_links_are_found(choice: object, links: set[Link]) -> None:
    assert possible_links({"score": SCORE, "choice": np.array(choice)}) == links


def test_equal_scores_have_two_right_choices() -> None:
    score = f32([[1.0, 1.0, 0.0]])
    for choice in (0, 1):
        assert possible_links({"score": score, "choice": np.array([choice])})
    assert not possible_links({"score": score, "choice": np.array([2])})


def test_one_case_ends_a_link_that_others_suggested() -> None:
    links = possible_links({"score": SCORE, "choice": np.array([1, 0])})
    assert surviving_links(links, {"score": SCORE, "choice": np.array([1, 0])}) == links
    assert not surviving_links(links, {"score": SCORE, "choice": np.array([1, 2])})


def test_a_case_with_nan_says_nothing() -> None:
    links = possible_links({"score": SCORE, "choice": np.array([1, 0])})
    assert surviving_links(links, {"score": SCORE * np.nan, "choice": np.array([0, 0])}) == links


@pytest.mark.parametrize(
    ("got", "margin"),
    [([1, 0], 0.0), ([2, 0], 0.4), ([1, 2], 0.4), ([0, 1], 0.8), ([3, 0], None), ([-1, 0], None)],
)
def test_margin(got: list[int], margin: float | None) -> None:
    outputs = {"score": SCORE, "choice": np.array([1, 0])}
    found = largest_margin(Link("choice", "score", 1, False), outputs, np.array(got))
    assert found == (None if margin is None else pytest.approx(margin))


def test_a_top_k_with_one_place_twice_is_no_choice() -> None:
    outputs = {"score": SCORE, "choice": np.array([[1, 2], [0, 2]])}
    link = Link("choice", "score", 1, True)
    assert largest_margin(link, outputs, np.array([[1, 2], [0, 1]])) == pytest.approx(0.1)
    assert largest_margin(link, outputs, np.array([[1, 1], [0, 2]])) is None


FLOOR = 1e-3


def judged(got: object, choice: object, *, score: np.ndarray = SCORE) -> tuple[bool, str]:
    outputs = {"score": score, "choice": np.array(choice)}

    class Fixed:
        def answer(self, _: Case) -> Answer:
            return Answer(outputs, {"score": Floor(FLOOR, FLOOR, "given")})

    specs = (tensor("score", "float32[2, 3]"), tensor("choice", "int64[2]"))
    cases = tuple(Case(f"c{i}", "random", {}, {"x": Normal(i)}, {}) for i in range(3))
    candidate = FunctionSession(lambda _: outputs | {"choice": np.array(got)}, X, specs)
    verdict = compare(Fixed(), candidate, CasePlan(cases, ()), PartSpec("net", "fp32", X, specs))
    finding = next(found for found in verdict.findings if found.output == "choice")
    return finding.passed, finding.reason


def test_a_difference_passes_under_sixteen_floors_of_the_score() -> None:
    close = SCORE.copy()
    close[0, 2] = close[0, 1] - 15.5 * FLOOR
    assert judged([2, 0], [1, 0], score=close) == (
        True,
        (
            "tie: 1 of 2 elements differ, the scores 'score' of the two choices are 15.5 floors apart, "
            "less than 16"
        ),
    )
    close[0, 2] = close[0, 1] - 16.5 * FLOOR
    assert judged([2, 0], [1, 0], score=close) == (
        False,
        (
            "output 'choice' differs in 1 of 2 elements: 2 where the reference is 1, the scores 'score' "
            "of the two "
            "choices are 16.5 floors apart, a tie is less than 16"
        ),
    )


def test_a_top_k_swap_of_near_scores_passes_and_of_far_ones_does_not() -> None:
    close = SCORE.copy()
    close[0, 2] = close[0, 1] - 2 * FLOOR
    assert judged([[2, 1], [0, 2]], [[1, 2], [0, 2]], score=close)[0]
    assert not judged([[1, 2], [2, 0]], [[1, 2], [0, 2]], score=close)[0]


def test_without_a_score_every_difference_counts() -> None:
    assert judged([1, 2], [1, 1]) == (
        False,
        "output 'choice' differs in 1 of 2 elements: 2 where the reference is 1",
    )
