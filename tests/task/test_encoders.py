"""The encoders of a model that compares pictures with texts: numbers of transformers, computed once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyport.errors import SessionError, UsageError
from anyport.task import TaskOptions
from anyport.task.encoders import Encoders, encoder_settings
from anyport.task.part_forms import OpenParts, known_parts
from anyport.task.picture_settings import FittedPicture, fitted_pictures
from anyport.task.texts import TextReader
from tests.task import blip

TEXTS = ["a cat on the sofa", "", "two dogs", "what is it ? a small red car in the street"]


def opened(task: str = "match") -> tuple[Encoders, dict[str, blip.TorchPart]]:
    graphs = blip.graphs(task)
    wanted = blip.MODELS[task][1]
    settings = encoder_settings(graphs.settings, known_parts(graphs.parts), task, wanted)
    reader = TextReader(graphs, settings.text, "the task")
    return Encoders(OpenParts(graphs, wanted, TaskOptions()), settings, reader), graphs.sessions


def fitted(encoders: Encoders, n: int = 4) -> list[FittedPicture]:
    return fitted_pictures(blip.pictures(12)[:n], encoders.settings.picture, "match")


def expected(use_itm_head: bool) -> np.ndarray:
    """Return the scores of each text alone with its picture."""
    found = []
    for values, text in zip(blip.pixel_values(blip.pictures(12)[:4]), TEXTS, strict=True):
        ids = torch.tensor([[blip.START, *blip.word_ids(text.replace("dogs", "dog ##s")), blip.SEP]])
        with torch.no_grad():
            scores = blip.matcher()(
                input_ids=ids,
                pixel_values=values[None],
                attention_mask=torch.ones_like(ids),
                use_itm_head=use_itm_head,
            ).itm_score
        found.append(scores[0].numpy())
    return np.stack(found)


def test_texts_of_several_lengths_match_as_each_alone() -> None:
    encoders, _ = opened()
    texts = encoders.read(TEXTS, truncate=False)
    found = encoders.match_logits(texts, encoders.image_states(fitted(encoders)))
    np.testing.assert_allclose(found, expected(use_itm_head=True), atol=2e-5)


def test_features_are_those_of_transformers() -> None:
    encoders, _ = opened()
    texts = encoders.text_features(encoders.read(TEXTS, truncate=False))
    pictures = encoders.image_features(fitted(encoders))
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-6)
    similar = (texts * pictures).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(similar, expected(use_itm_head=False), atol=1e-5)


def test_pictures_and_texts_are_computed_once() -> None:
    encoders, sessions = opened()
    pictures, texts = fitted(encoders), encoders.read([*TEXTS, *TEXTS], truncate=False)
    first = encoders.image_features(pictures), encoders.text_features(texts)
    runs = {name: session.n_runs for name, session in sessions.items()}
    assert (runs["vision_encoder"], runs["text_encoder"]) == (1, 1)
    again = encoders.image_features(pictures[::-1]), encoders.text_features(texts[:3])
    encoders.image_states(pictures)
    assert {name: session.n_runs for name, session in sessions.items()} == runs
    np.testing.assert_array_equal(again[0], first[0][::-1])
    np.testing.assert_array_equal(again[1], first[1][:3])


def test_a_changed_pixel_is_another_picture() -> None:
    encoders, sessions = opened()
    [picture] = fitted(encoders, 1)
    pixels = picture.pixels.copy()
    pixels[3, 4, 1] ^= 1
    encoders.image_states([picture])
    encoders.image_states([FittedPicture(picture.name, pixels)])
    assert sessions["vision_encoder"].n_runs == 2


def test_states_have_the_length_of_their_text() -> None:
    encoders, _ = opened()
    texts = encoders.read(TEXTS, truncate=False)
    lengths = [len(text.alone) for text in texts]
    assert lengths == [7, 2, 5, 13]
    assert [len(states) for states in encoders.text_states(texts)] == lengths
    states = encoders.multimodal_states(texts, encoders.image_states(fitted(encoders)))
    assert [one.shape for one in states] == [(length, blip.WIDTH) for length in lengths]


def test_a_model_without_projections_has_no_features() -> None:
    encoders, _ = opened("embed")
    with pytest.raises(UsageError, match="the model has no part 'image_projection': it gives states"):
        encoders.image_features(fitted(encoders))
    with pytest.raises(UsageError, match="the model has no part 'text_projection'"):
        encoders.text_features(encoders.read(TEXTS, truncate=False))


def test_numbers_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encoders, sessions = opened()
    broken = np.full((4, 13, blip.WIDTH), np.nan, np.float32)
    monkeypatch.setattr(sessions["text_encoder"], "run", lambda _: {"text_embeds": broken})
    with pytest.raises(SessionError, match="the part 'text_encoder' gives numbers that are not finite"):
        encoders.text_states(encoders.read(TEXTS, truncate=False))
