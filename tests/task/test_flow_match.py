"""The schedule, against diffusers."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_shift

from anyport.errors import InputError
from anyport.task.edit_settings import ScheduleSettings
from anyport.task.flow_match import check_steps, euler_step, noised, sigmas, timestep

SCHEDULES = [
    ScheduleSettings(),
    ScheduleSettings(terminal=None),
    ScheduleSettings(base_shift=1.0986122886681098, max_shift=1.0986122886681098, terminal=0),  # Lightning
    ScheduleSettings(time_shift="linear", base_shift=2.0, max_shift=3.0),
    ScheduleSettings(dynamic=False, shift=3.0, terminal=None),
    ScheduleSettings(dynamic=False, shift=3.0, terminal=0.1),
]


def theirs(settings: ScheduleSettings, n_steps: int, n_tokens: int) -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=settings.n_train_timesteps,
        shift=settings.shift,
        use_dynamic_shifting=settings.dynamic,
        base_shift=settings.base_shift,
        max_shift=settings.max_shift,
        base_image_seq_len=settings.base_tokens,
        max_image_seq_len=settings.max_tokens,
        shift_terminal=settings.terminal,
        time_shift_type=settings.time_shift,
    )
    shift = calculate_shift(
        n_tokens, settings.base_tokens, settings.max_tokens, settings.base_shift, settings.max_shift
    )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / n_steps, n_steps), mu=shift)
    return scheduler


@pytest.mark.parametrize("settings", SCHEDULES, ids=range(len(SCHEDULES)))
@pytest.mark.parametrize("n_tokens", [1, 195, 4096, 20_000])
@pytest.mark.parametrize("n_steps", [2, 4, 8, 40])
def test_the_schedule_is_that_of_diffusers(settings: ScheduleSettings, n_tokens: int, n_steps: int) -> None:
    scheduler = theirs(settings, n_steps, n_tokens)
    found = sigmas(n_steps, n_tokens, settings)
    assert found.dtype == np.float32
    assert np.array_equal(found, scheduler.sigmas.numpy())
    told = np.concatenate([timestep(sigma, settings) for sigma in found[:-1]])
    assert np.array_equal(told, (scheduler.timesteps / 1000).numpy())
    random = np.random.default_rng(0)
    latents = random.standard_normal((1, 9, 64), np.float32)
    for place, now in enumerate(scheduler.timesteps):
        velocity = random.standard_normal((1, 9, 64), np.float32)
        wanted = scheduler.step(torch.from_numpy(velocity), now, torch.from_numpy(latents))[0].numpy()
        latents = euler_step(latents, velocity, found[place], found[place + 1])
        assert np.array_equal(latents, wanted)


def test_noise_is_mixed_as_diffusers_mixes_it() -> None:
    scheduler, settings = theirs(SCHEDULES[0], 8, 256), SCHEDULES[0]
    clean, noise = np.random.default_rng(0).standard_normal((2, 1, 9, 64), np.float32)
    for place, now in enumerate(scheduler.timesteps):
        wanted = scheduler.scale_noise(torch.from_numpy(clean), now[None], torch.from_numpy(noise)).numpy()
        found = noised(clean, noise, sigmas(8, 256, settings)[place])
        assert np.abs(found - wanted).max() < 1e-6
    assert np.array_equal(noised(clean, noise, np.float32(0)), clean)


def test_numbers_of_steps_that_give_no_picture_are_refused() -> None:
    plain = msgspec.structs.replace(SCHEDULES[0], terminal=None)
    for n, settings, message in (
        (0, SCHEDULES[0], "steps is 0, it must be 1 to 1000"),
        (-1, plain, "steps is -1, it must be 1 to 1000"),
        (1001, plain, "steps is 1001, it must be 1 to 1000"),
        (1, SCHEDULES[0], "1 step cannot be stretched to end at 0.02: it would divide 0 by 0"),
    ):
        with pytest.raises(InputError) as caught:
            check_steps(n, settings)
        assert caught.value.what == message
    check_steps(1, plain)
    assert sigmas(1, 256, plain).tolist() == [1.0, 0.0]
    check_steps(2, SCHEDULES[0])
    with np.errstate(invalid="ignore"):
        assert theirs(SCHEDULES[0], 1, 256).sigmas.isnan().any()  # why one step is refused
