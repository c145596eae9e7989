from __future__ import annotations

import math
from functools import partial

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


def test_the_margin_is_that_between_the_two_texts_that_fit_best() -> None:
    trial = open_trial(blip.graphs("match"))
    feeds = trial.prepare(fitted(trial, 0), TEXTS)
    scores = np.sort(trial.run(feeds)["match_scores"][0])
    assert trial.margin(feeds) > 0
    assert 0.01 < float(scores[-1] - scores[-2]) / trial.margin(feeds) < 100  # the scale of the logits
    twice = trial.prepare(fitted(trial, 0), ["a cat", "a cat"])
    assert trial.margin(twice) < 1e-6
    alone = trial.prepare(fitted(trial, 0), ["a cat"])
    assert trial.margin(alone) == math.inf
    without = open_trial(blip.graphs("embed"))
    assert without.margin(without.prepare(fitted(without, 0), ["a cat"])) == math.inf


@pytest.mark.parametrize("task", ["answer", "embed", "match"])
@pytest.mark.parametrize("token", [-1, len(blip.VOCABULARY)])
def test_texts_beyond_the_vocabulary_are_refused_before_anything_runs(task: str, token: int) -> None:
    graphs = blip.graphs(task)
    trial = open_trial(graphs)
    feeds = trial.prepare(fitted(trial, 0), TEXTS[:1])
    texts = feeds["texts"].copy()
    texts[0, 0, -1] = token
    n_runs = {part: session.n_runs for part, session in graphs.sessions.items()}
    with pytest.raises(InputError) as err:
        trial.run(feeds | {"texts": texts})
    assert err.value.what == f"'texts' holds the token {token}, the model has 0 to {len(blip.VOCABULARY) - 1}"
    assert {part: session.n_runs for part, session in graphs.sessions.items()} == n_runs


@pytest.mark.parametrize("task", ["answer", "embed", "match"])
def test_no_text_reaches_beyond_the_positions(task: str) -> None:
    graphs = blip.graphs(task)
    trial = open_trial(graphs)
    words = trial.signature.dims["words"]
    assert (words.low, words.high) == (0, blip.POSITIONS - 2)
    feeds = trial.prepare(fitted(trial, 0), TEXTS[:1])
    longest = np.full((1, 1, words.high), blip.word_ids("cat")[0])
    fed = noted(graphs)
    trial.run(feeds | {"texts": longest})
    assert max(tokens.shape[1] for tokens in fed.values()) == blip.POSITIONS
    trial.run(feeds | {"texts": longest[:, :, :0]})


@pytest.mark.parametrize("task", ["answer", "embed", "match"])
def test_a_text_that_is_read_with_a_picture_has_its_own_first_token(task: str) -> None:
    settings = blip.settings() | {"text": blip.TEXT | {"multimodal_start": blip.BOS}}
    graphs = blip.TorchGraphs(task, settings)
    trial = open_trial(graphs)
    feeds = trial.prepare(fitted(trial, 0), ["a cat"])
    fed = noted(graphs)
    trial.run(feeds)
    for part, tokens in fed.items():
        first = blip.START if part == "text_encoder" else blip.BOS
        assert tokens.tolist() == [[first, *blip.word_ids("a cat"), blip.SEP]]
    assert fed.keys() == (
        {"question_encoder"} if task == "answer" else {"text_encoder", "multimodal_encoder"}
    )


def noted(graphs: blip.TorchGraphs) -> dict[str, np.ndarray]:
    """Return the tokens that each encoder is fed from now on, the last ones of each."""
    fed: dict[str, np.ndarray] = {}

    def note(part: str, feeds: blip.Tensors) -> None:
        fed[part] = feeds["input_ids"].numpy()

    for part in ("question_encoder", "text_encoder", "multimodal_encoder"):
        if part in graphs.sessions:
            graphs.sessions[part].spoil = partial(note, part)
    return fed
