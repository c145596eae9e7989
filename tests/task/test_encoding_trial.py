from __future__ import annotations

import math

import numpy as np
import pytest

from anyport.errors import InputError
from anyport.task.match import Matcher
from anyport.task.opening import task_of
from anyport.task.task import TaskOptions
from anyport.task.trials import open_trial
from tests.task import blip
from tests.task.test_writing_trial import fitted

TEXTS = ["a cat", "a red car in the street", "what is it ?", "two dogs"]


def test_what_is_judged_is_what_the_matcher_answers() -> None:
    trial, task = open_trial(blip.graphs("match")), task_of(blip.graphs("match"), TaskOptions())
    assert isinstance(task, Matcher)
    feeds = trial.prepare(fitted(trial, 0), TEXTS)
    assert feeds["texts"].shape == (1, 4, len(blip.word_ids(TEXTS[1])))
    found = trial.run(feeds)
    assert {name: array.shape for name, array in found.items()} == {
        "image": (1, blip.FEATURES),
        "text": (1, 4, blip.FEATURES),
        "match_scores": (1, 4),
    }
    picture = blip.pictures()[0]
    for place, expected in enumerate(task.match([picture] * 4, TEXTS)):
        probable = 1 / (1 + math.exp(-float(found["match_scores"][0, place])))
        assert probable == pytest.approx(expected.score, abs=1e-5)
        similar = float(found["image"][0] @ found["text"][0, place])
        assert similar == pytest.approx(expected.similarity, abs=1e-5)


def test_every_sample_is_computed_anew() -> None:
    graphs = blip.graphs("match")
    trial = open_trial(graphs)
    feeds = trial.prepare(fitted(trial, 0), TEXTS)
    for n_runs in (1, 2):
        trial.run(feeds)
        assert graphs.sessions["vision_encoder"].n_runs == n_runs


def test_a_model_without_projections_gives_its_first_states() -> None:
    trial = open_trial(blip.graphs("embed"))
    assert trial.parts == ("vision_encoder", "text_encoder", "multimodal_encoder")
    found = trial.run(trial.prepare(fitted(trial, 1), TEXTS[:1]))
    assert {name: array.shape for name, array in found.items()} == {
        "image": (1, blip.WIDTH),
        "text": (1, 1, blip.WIDTH),
        "both": (1, 1, blip.WIDTH),
    }
    with task_of(blip.graphs("embed"), TaskOptions()) as task:
        [picture] = task.embed_pictures([blip.pictures()[1]])
        [pair] = task.embed_pairs([blip.pictures()[1]], TEXTS[0])
    np.testing.assert_allclose(found["image"][0], picture.states[0], atol=1e-6)
    np.testing.assert_allclose(found["both"][0, 0], pair.states[0], atol=1e-5)


@pytest.mark.parametrize("task", ["embed", "match"])
def test_the_answers_are_those_of_the_signature(task: str) -> None:
    trial = open_trial(blip.graphs(task))
    found = trial.run(trial.prepare(fitted(trial, 2), TEXTS[:2]))
    for spec in trial.outputs:
        assert found[spec.name].shape == spec.shape({"texts": 2})
        assert found[spec.name].dtype == spec.dtype


def test_a_text_that_is_too_long_is_named() -> None:
    trial = open_trial(blip.graphs("match"))
    with pytest.raises(InputError, match=r"text 'a a a .*' has 50 tokens, 38 fit"):
        trial.prepare(fitted(trial, 0), ["a " * 50, "a cat"])
