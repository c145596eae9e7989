"""The settings of the task ``edit``: defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from anyport.bundle import PartEntry
from anyport.errors import UsageError
from anyport.runtime.signature import signature_of_part
from anyport.task import check_settings
from anyport.task.edit_settings import PARTS, editor_settings
from tests.task import qwen_edit

SIGNATURES = {part: qwen_edit.signature(part) for part in PARTS}


def test_defaults_are_those_of_the_2509_checkpoint() -> None:
    found = editor_settings(qwen_edit.settings(), SIGNATURES)
    assert (found.text.n_dropped, found.text.max_length, found.text.positions) == (64, 128, "plain")
    assert (found.picture.condition_area, found.picture.n_max) == (384 * 384, 3)
    assert (found.latents.pixels_per_token, found.latents.token_width) == (16, 64)
    schedule = found.schedule
    assert (schedule.base_shift, schedule.max_shift, schedule.terminal) == (0.5, 0.9, 0.02)
    assert found.sampling.guidance == 4.0
    check_settings("edit", qwen_edit.settings(), SIGNATURES)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"text": {"positions": "3d"}},
            "settings of the task 'edit': 'text.positions': invalid enum value '3d'",
        ),
        (
            {"schedule": {"terminl": 0.1}},
            "settings of the task 'edit': unknown key 'terminl' in 'schedule' (did you mean 'terminal'?)",
        ),
        ({"picture": {"mean": [0.5]}}, "settings: picture.mean = [0.5] must be three finite numbers"),
        ({"picture": {"std": [1, 0, 1]}}, "settings: picture.std = [1.0, 0.0, 1.0] must be above 0"),
        ({"picture": {"window": 100}}, "settings: picture.window = 100 is no multiple of patch x merge = 28"),
        (
            {"picture": {"side_multiple": 24}},
            "settings: picture.side_multiple = 24 is no multiple of latents.patch x latents.vae_scale = 16",
        ),
        (
            {"schedule": {"shift": 0.0}},
            "settings: schedule and rope must hold finite numbers, shift and theta",
        ),
        (
            {"schedule": {"terminal": 1.0}},
            "settings: schedule.terminal = 1.0 must be 0 (none) or lie below 1",
        ),
        (
            {"schedule": {"terminal": -0.1}},
            "settings: schedule.terminal = -0.1 must be 0 (none) or lie below 1",
        ),
        (
            {"schedule": {"max_tokens": 256}},
            "settings: schedule.max_tokens must be above schedule.base_tokens",
        ),
        ({"rope": {"axes": [8, 11, 13]}}, "settings: rope.axes = [8, 11, 13] must be even numbers"),
        (
            {"text": {"picture": "<|image_pad|><|im_end|>"}},
            "settings: text.picture has no {} for the number of the picture",
        ),
        (
            {"rope": {"axes": [16, 56, 56]}},
            "settings of the task 'edit' make 64 numbers in axis 1 of 'img_cos', the part 'transformer'",
        ),
        (
            {"latents": {"channels": 8}},
            "settings of the task 'edit' make 32 numbers in axis 2 of 'hidden_states'",
        ),
        (
            {"picture": {"patch": 7}},
            "settings of the task 'edit' make 294 numbers in axis 1 of 'pixel_values'",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        editor_settings(qwen_edit.settings(**more), SIGNATURES)
    assert caught.value.what.startswith(message)


def test_parts_that_do_not_fit_are_refused() -> None:
    settings = qwen_edit.settings()
    without = {name: one for name, one in SIGNATURES.items() if name != "vae_encoder"}
    inputs, outputs = qwen_edit.FORMS["transformer"]
    more = signature_of_part(PartEntry(inputs | {"guidance": "float32[batch]"}, outputs, {"batch": "1..4"}))
    still = signature_of_part(PartEntry(inputs | {"timestep": "float32[1]"}, outputs, {"batch": "1..4"}))
    for parts, message in (
        (without, "the task 'edit' needs a part 'vae_encoder', the model has: vision_encoder,"),
        (SIGNATURES | {"transformer": more}, "the inputs of part 'transformer' must be "),
        (
            SIGNATURES | {"transformer": still},
            "the inputs of part 'transformer': 'timestep' must have 1 axes, the first of them dynamic",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            editor_settings(settings, parts)
        assert caught.value.what.startswith(message)
