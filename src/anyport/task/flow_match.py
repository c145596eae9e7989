"""The Euler schedule of flow matching: how noisy the latents are before and after each step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from anyport.errors import InputError

if TYPE_CHECKING:
    from anyport.task.edit_settings import ScheduleSettings

MAX_STEPS: Final = 1000


def check_steps(n_steps: int, settings: ScheduleSettings) -> None:
    """Refuse a number of steps that gives no picture.

    Raises:
        InputError: Saying why.
    """
    if not 1 <= n_steps <= MAX_STEPS:
        raise InputError(f"steps is {n_steps}, it must be 1 to {MAX_STEPS}")
    if n_steps == 1 and settings.terminal:
        raise InputError(
            f"1 step cannot be stretched to end at {settings.terminal:g}: it would divide 0 by 0",
            do="give 2 steps or more",
        )


def sigmas(n_steps: int, n_tokens: int, settings: ScheduleSettings) -> np.ndarray:
    """Return the part of noise in the latents before each step, and 0 at the end.

    As diffusers' FlowMatchEulerDiscreteScheduler has it for ``sigmas=linspace(1, 1/n, n)``, to the last bit.

    Args:
        n_steps: Checked.
        n_tokens: Those of the answer; more tokens keep more noise for longer.
        settings: Checked.

    Returns:
        float32[n_steps + 1], falling.
    """
    even = np.linspace(1.0, 1 / n_steps, n_steps).astype(np.float32)
    shifted = _shifted(even, n_tokens, settings)
    if settings.terminal:
        rest = 1 - shifted
        shifted = 1 - rest / (rest[-1] / (1 - settings.terminal))
    return np.append(shifted.astype(np.float32), np.float32(0))


def _shifted(even: np.ndarray, n_tokens: int, settings: ScheduleSettings) -> np.ndarray:
    if not settings.dynamic:
        return settings.shift * even / (1 + (settings.shift - 1) * even)
    slope = (settings.max_shift - settings.base_shift) / (settings.max_tokens - settings.base_tokens)
    shift = n_tokens * slope + (settings.base_shift - slope * settings.base_tokens)
    factor = math.exp(shift) if settings.time_shift == "exponential" else shift
    return factor / (factor + (1 / even - 1))


def timestep(sigma: np.float32, settings: ScheduleSettings) -> np.ndarray:
    """Return float32[1]: what the transformer is told, rounded over ``sigma * 1000`` as diffusers does."""
    n = np.float32(settings.n_train_timesteps)
    return np.array([sigma * n / n], np.float32)


def euler_step(latents: np.ndarray, velocity: np.ndarray, now: np.float32, after: np.float32) -> np.ndarray:
    """Return the latents after one step along the velocity.

    >>> euler_step(np.float32([1]), np.float32([2]), np.float32(1), np.float32(0.5)).tolist()
    [0.0]
    """
    stepped: np.ndarray = latents + (after - now) * velocity
    return stepped


def noised(clean: np.ndarray, noise: np.ndarray, sigma: np.float32) -> np.ndarray:
    """Return what clean latents look like when this part of them is noise."""
    mixed: np.ndarray = (np.float32(1) - sigma) * clean + sigma * noise
    return mixed
