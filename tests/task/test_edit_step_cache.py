"""Steps that reuse a velocity: which ones, and what it costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.errors import InputError
from anyport.task.edit_step_cache import MOST_IN_A_ROW, StepCache
from tests.task.qwen_edit import pictures_of, psnr
from tests.task.test_edit import CASES, edited, how, opened, sessions

if TYPE_CHECKING:
    from tests.task.qwen_edit import Case

N_STEPS = 12
SHORT, GUIDED = CASES["narrow"], CASES["2 pictures, odd grid"]


def computed(threshold: float, velocities: list[float]) -> list[bool]:
    """Return which steps are computed, where the latents move on by 1 in each of them."""
    cache, found = StepCache(threshold, len(velocities)), []
    for step, value in enumerate(velocities):
        n = cache.n_computed
        answer = cache.velocity(np.full((1, 2, 3), step, np.float32), lambda v=value: np.full((1, 2, 3), v))  # type: ignore[misc]
        found.append(cache.n_computed > n)
        assert not found[-1] or (answer == value).all()
    assert cache.n_computed == sum(found)
    return found


def test_nothing_is_reused_at_threshold_0() -> None:
    assert all(computed(0.0, [1.0] * N_STEPS))


def test_a_constant_velocity_is_computed_as_rarely_as_is_allowed() -> None:
    """Twice to know, then once after three, and at the end."""
    run = [*[False] * MOST_IN_A_ROW, True]
    assert computed(0.1, [1.0] * N_STEPS) == [True, True, *run, *run, False, True]


def test_the_changes_add_up() -> None:
    """A velocity of 10 that changes by 1 in a step: by a tenth in one, by three tenths in three."""
    velocities = [10.0, *[11.0 + step for step in range(N_STEPS - 1)]]
    few = computed(0.05, velocities)
    assert all(few)
    one = computed(0.1, velocities)
    assert one[:4] == [True, True, False, True]
    assert sum(computed(0.25, velocities)) < sum(one) < N_STEPS


def test_a_velocity_that_turns_is_computed() -> None:
    assert all(computed(0.5, [1.0, -1.0] * (N_STEPS // 2)))


def test_latents_that_stand_still_tell_nothing() -> None:
    cache = StepCache(10.0, 5)
    latents = np.ones((1, 2, 3), np.float32)
    for _ in range(5):
        cache.velocity(latents, lambda: latents)
    assert cache.n_computed == 5


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_first_and_last_are_always_computed(n_steps: int) -> None:
    assert all(computed(100.0, [1.0] * n_steps))


# ── in the task ────────────────────────────────────────────────────────────────────────────────────────


def with_cache(case: Case, threshold: float) -> tuple[float, int, int, tuple[str, ...]]:
    """Return PSNR against every step computed, steps computed, runs of the transformer, and the notes."""
    with opened(case) as task:
        found = task.edit(pictures_of(case), case.prompt, how(case, step_cache=threshold))
        runs = sessions(task)["transformer"].n_runs
    return psnr(found.pixels, edited(case).pixels), found.n_computed, runs, found.notes


def test_it_is_off() -> None:
    found = edited(SHORT)
    assert found.n_computed == SHORT.steps
    assert not any("cache" in note for note in found.notes)
    quality, n_computed, _, _ = with_cache(SHORT, 0.0)
    assert (quality, n_computed) == (math.inf, SHORT.steps)


def test_what_it_saves_and_costs() -> None:
    """With guidance both runs of a step are saved; a higher threshold saves more and costs more."""
    careful, fast = with_cache(GUIDED, 0.5), with_cache(GUIDED, 2.0)
    for quality, n_computed, n_runs, notes in (careful, fast):
        assert n_runs == 2 * n_computed < 2 * GUIDED.steps
        assert f"step cache: {n_computed} of 6 steps were computed" in notes
        assert quality < math.inf
    assert fast[0] < careful[0]
    assert fast[1] < careful[1]
    assert careful[0] > 35


@pytest.mark.parametrize("threshold", [-0.1, math.nan, math.inf])
def test_thresholds_that_are_none(threshold: float) -> None:
    with opened() as task, pytest.raises(InputError) as caught:
        task.plan(pictures_of(SHORT), "x", how(SHORT, step_cache=threshold))
    assert caught.value.what == f"step_cache is {threshold}, it must be 0 or more"
