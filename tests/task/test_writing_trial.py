from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.errors import InputError
from anyport.task.answer import Answerer
from anyport.task.caption import Captioner
from anyport.task.opening import task_of
from anyport.task.picture_settings import fitted_pictures
from anyport.task.task import TaskOptions
from anyport.task.trials import PartSessions, open_trial
from tests.task import blip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.task.trials import Trial
    from anyport.tensors import TensorSpec

QUESTION = "what colour is the cat ?"


@dataclass
class Changed:
    """A decoder whose choice is another one at one of its runs."""

    session: blip.TorchPart
    run_number: int
    n_runs: int = 0

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.session.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.n_runs += 1
        found = self.session.run(feeds)
        return found | ({"logits": -found["logits"]} if self.n_runs == self.run_number else {})

    def close(self) -> None:
        self.session.close()


def fitted(trial: Trial, number: int) -> np.ndarray:
    [one] = fitted_pictures([blip.pictures()[number]], trial.settings, "test")
    return one.pixels


def with_decoder(task: str, changed_at: int) -> Trial:
    graphs = blip.graphs(task, max_new_tokens=8)
    sessions = {part: graphs.open(part, TaskOptions()) for part in graphs.parts}
    changed = sessions | {"text_decoder": Changed(sessions["text_decoder"], changed_at)}
    return open_trial(PartSessions(task, graphs.settings, graphs.parts, changed, graphs.read_bytes))


def test_a_caption_is_what_the_task_itself_writes() -> None:
    trial, task = open_trial(blip.graphs("caption")), task_of(blip.graphs("caption"), TaskOptions())
    assert isinstance(task, Captioner)
    for number in range(4):
        feeds = trial.prepare(fitted(trial, number), [])
        assert feeds.keys() == {"picture", "written"}
        [expected] = task.caption([blip.pictures()[number]])
        assert (blip.BOS, *feeds["written"][0].tolist()) == expected.token_ids
        np.testing.assert_array_equal(trial.run(feeds)["tokens"], feeds["written"])


def test_a_prompt_comes_before_what_is_judged() -> None:
    graphs = blip.graphs("caption", prompt="a photo of", max_new_tokens=6)
    trial, task = open_trial(graphs), task_of(graphs, TaskOptions())
    feeds = trial.prepare(fitted(trial, 0), [])
    [expected] = task.caption([blip.pictures()[0]])
    n_before = 1 + len(blip.word_ids("a photo of"))
    assert tuple(feeds["written"][0].tolist()) == expected.token_ids[n_before:]
    np.testing.assert_array_equal(trial.run(feeds)["tokens"], feeds["written"])


def test_an_answer_is_what_the_task_itself_writes() -> None:
    trial, task = open_trial(blip.graphs("answer")), task_of(blip.graphs("answer"), TaskOptions())
    assert isinstance(task, Answerer)
    feeds = trial.prepare(fitted(trial, 2), [QUESTION])
    assert feeds["texts"].tolist() == [[blip.word_ids(QUESTION)]]
    [expected] = task.ask([blip.pictures()[2]], QUESTION)
    assert (blip.BOS, *feeds["written"][0].tolist()) == expected.token_ids
    np.testing.assert_array_equal(trial.run(feeds)["tokens"], feeds["written"])


@pytest.mark.parametrize("task", ["answer", "caption"])
def test_one_other_choice_does_not_count_for_those_after_it(task: str) -> None:
    exact = open_trial(blip.graphs(task, max_new_tokens=8, min_new_tokens=8))
    feeds = exact.prepare(fitted(exact, 1), [QUESTION])
    assert feeds["written"].shape == (1, 8)
    found = with_decoder(task, changed_at=3).run(feeds)["tokens"]
    assert np.flatnonzero(found[0] != feeds["written"][0]).tolist() == [2]


def test_another_picture_gives_other_choices() -> None:
    trial = open_trial(blip.graphs("caption", max_new_tokens=8, min_new_tokens=8))
    one, other = (trial.prepare(fitted(trial, number), []) for number in (0, 3))
    exchanged = trial.run(one | {"picture": other["picture"]})["tokens"]
    assert (exchanged != one["written"]).any()


def test_tokens_beyond_the_vocabulary_are_refused_before_anything_runs() -> None:
    trial = open_trial(blip.graphs("caption"))
    feeds = trial.prepare(fitted(trial, 0), [])
    n = len(blip.VOCABULARY)
    with pytest.raises(InputError) as err:
        trial.run(feeds | {"written": np.array([[n]])})
    assert err.value.what == f"'written' holds the token {n}, the model has 0 to {n - 1}"
