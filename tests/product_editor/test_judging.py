"""The judge is judged: the target passes, every planted corruption fails."""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from drawing import render
from edits import KINDS, alternatives
from judging import BINDING, CORE, OUTSIDE_DB, cases, judge, judge_all, psnr_db, table, table_lines
from world import COLOURS, PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from drawing import Picture
    from judging import JudgedCase

N_CASES: Final = 8


@cache
def of(kind: str) -> list[JudgedCase]:
    return cases(N_CASES, seed=1, kinds=(kind,))


def moved(picture: Picture) -> Picture:
    return np.roll(picture, 4, axis=1)


def darker(picture: Picture) -> Picture:
    return (picture * 0.7).astype(np.uint8)


def spotted(picture: Picture) -> Picture:
    found = picture.copy()
    found[36:60, 20:44] = 255 - found[36:60, 20:44]  # a quarter of that hides in a new background: 18 dB
    return found


def noisy(picture: Picture, strength: float) -> Picture:
    noise = np.random.default_rng(0).normal(0, strength, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


def averaged(picture: Picture) -> Picture:
    return np.broadcast_to(picture.mean((0, 1)), picture.shape).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_right_with_a_little_noise_too(kind: str) -> None:
    for case in of(kind):
        assert judge(case, case.target).right
        assert judge(case, noisy(case.target, 6)).right


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_as_it_was_is_wrong(kind: str) -> None:
    assert not any(judge(case, case.source).right for case in of(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_other_edit_is_wrong(kind: str) -> None:
    for case in of(kind):
        assert case.wrong
        assert not any(judge(case, wrong).nearest for wrong in case.wrong)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("corrupt", [moved, darker, spotted, averaged])
def test_a_corrupted_target_is_wrong(kind: str, corrupt: Callable[[Picture], Picture]) -> None:
    n_judged = 0
    for case in of(kind):
        answer = corrupt(case.target)
        # an empty card is the same when it is moved, and black on navy is nearly so
        if psnr_db(answer, case.target, np.ones(answer.shape[:2], bool)) < OUTSIDE_DB - 2:
            assert not judge(case, answer).right
            n_judged += 1
    assert n_judged >= N_CASES // 4


def test_much_noise_is_wrong() -> None:
    assert not any(judge(case, noisy(case.target, 60)).right for kind in KINDS for case in of(kind))


@pytest.mark.parametrize("kind", ["recolour", "remove", "replace"])
def test_the_right_edit_of_the_wrong_item_is_wrong(kind: str) -> None:
    n_judged = 0
    for case in cases(40, seed=2, kinds=(kind,)):
        if len(case.edit.before.items) == 2:
            others = [scene for scene in alternatives(case.edit) if scene != case.edit.after]
            draw = random.Random(0)
            assert not judge(case, render(draw.choice(others))).right
            n_judged += 1
    assert n_judged > 10


def test_cases_are_balanced_and_the_same_each_time() -> None:
    drawn, again = cases(8, seed=3), cases(8, seed=3)
    assert [case.instruction for case in drawn] == [case.instruction for case in again]
    assert all(np.array_equal(a.target, b.target) for a, b in zip(drawn, again, strict=True))
    for kind in KINDS:
        found = [case for case in drawn if case.edit.kind == kind]
        assert (len(found), sum(case.unseen for case in found)) == (8, 4)
        assert sum(case.language == "zh" for case in found) == 4


def test_the_table_counts() -> None:
    drawn = cases(4, seed=4)
    answers = [case.target if case.edit.kind in CORE else case.source for case in drawn]
    rows = {row.name: row for row in table(drawn, judge_all(drawn, answers))}
    assert (rows["six kinds"].right, rows["replace"].right, rows["all"].n_cases) == (1.0, 0.0, 28)
    assert rows["all"].right == pytest.approx(24 / 28)
    assert rows[BINDING].n_cases == sum(
        case.edit.place is not None and len(case.edit.before.items) == 2 for case in drawn
    )
    lines = table_lines(rows.values())
    assert "| six kinds | 24 | 100.0% |" in "\n".join(lines)


def test_psnr() -> None:
    black, grey = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 51, np.uint8)
    everywhere = np.ones((2, 2), bool)
    assert psnr_db(black, grey, everywhere) == pytest.approx(-20 * np.log10(0.2))
    assert psnr_db(black, grey, ~everywhere) == psnr_db(black, black, everywhere) == 100.0
    assert len(COLOURS) == 8
    assert len(PRODUCTS) == 7
