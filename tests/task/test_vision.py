"""Pictures through the vision encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyport.errors import SessionError
from anyport.task import TaskOptions, settings_from
from anyport.task.part_forms import OpenParts
from anyport.task.picture_settings import FittedPicture, PictureSettings, fitted_pictures
from anyport.task.vision import VisionEncoder
from tests.task import blip

SETTINGS = settings_from(blip.PICTURE, PictureSettings, "settings")


def encoder() -> tuple[VisionEncoder, blip.TorchPart]:
    graphs = blip.graphs("caption")
    opened = OpenParts(graphs, ["vision_encoder"], TaskOptions())
    return VisionEncoder(opened, SETTINGS), graphs.sessions["vision_encoder"]


def fitted(n: int) -> list[FittedPicture]:
    return fitted_pictures(list(blip.pictures(20)[:n]), SETTINGS, "caption")


def test_states_are_those_of_transformers() -> None:
    with torch.no_grad():
        values = blip.pixel_values(blip.pictures(20)[:3])
        expected = blip.captioner().vision_model(pixel_values=values).last_hidden_state.numpy()
    np.testing.assert_allclose(encoder()[0].encode(fitted(3)), expected, atol=2e-5)


def test_many_pictures_go_through_in_batches() -> None:
    vision, session = encoder()
    assert vision.encode(fitted(20)).shape == (20, blip.N_PATCHES, blip.WIDTH)
    assert session.n_runs == 2


def test_numbers_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vision, session = encoder()
    states = np.zeros((2, blip.N_PATCHES, blip.WIDTH), np.float32)
    states[1, 3, 4] = np.inf
    monkeypatch.setattr(session, "run", lambda _: {"image_embeds": states})
    with pytest.raises(SessionError, match="the vision encoder's states of picture 2 are not finite"):
        vision.encode(fitted(2))
