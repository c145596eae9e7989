from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.errors import InputError
from anyport.task.answer import Answerer
from anyport.task.caption import Captioner
from anyport.task.generation import Generation
from anyport.task.graphs import OpenGraphs
from anyport.task.opening import task_of
from anyport.task.picture_settings import fitted_pictures
from anyport.task.task import TaskOptions
from anyport.task.text_writer import GenerationSettings
from anyport.task.trials import open_trial
from tests.task import blip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    return open_trial(OpenGraphs(task, graphs.settings, graphs.parts, changed, graphs.read_bytes))


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


@dataclass
class Redone(Changed):
    """A decoder whose scores a test changes."""

    change: Callable[[np.ndarray], np.ndarray] = np.copy

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self.session.run(feeds)
        return found | {"logits": self.change(found["logits"])}


def tied(logits: np.ndarray) -> np.ndarray:
    """Make the second best score as good as the best, but for one part in a million."""
    changed = logits.copy()
    order = np.argsort(logits, axis=1)
    for row, (second, first) in enumerate(order[:, -2:]):
        changed[row, second] = changed[row, first] - 1e-6 * np.abs(logits).max()
    return changed


@pytest.mark.parametrize("task", ["answer", "caption"])
def test_the_margin_is_that_of_the_closest_choice(task: str) -> None:
    graphs = blip.graphs(task, max_new_tokens=8)
    sessions = {part: graphs.open(part, TaskOptions()) for part in graphs.parts}

    def margin(change: Callable[[np.ndarray], np.ndarray]) -> float:
        decoder = Redone(sessions["text_decoder"], 0, change=change)
        others = {**sessions, "text_decoder": decoder}
        trial = open_trial(OpenGraphs(task, graphs.settings, graphs.parts, others, graphs.read_bytes))
        return trial.margin(trial.prepare(fitted(trial, 0), [QUESTION]))

    exact = margin(np.copy)
    assert exact > 1e-4
    assert margin(lambda logits: 4 * logits) == pytest.approx(exact)  # a share of the largest score
    assert margin(tied) == pytest.approx(1e-6, rel=0.2)


def test_the_margin_is_the_one_that_the_task_itself_tells() -> None:
    trial, task = open_trial(blip.graphs("caption")), task_of(blip.graphs("caption"), TaskOptions())
    assert isinstance(task, Captioner)
    [told] = task.caption([blip.pictures()[0]])
    feeds = trial.prepare(fitted(trial, 0), [])
    assert told.margin is not None
    largest = told.margin / trial.margin(feeds)
    assert 0.1 < largest < 100


@pytest.mark.parametrize(("prompt", "most"), [("", 40), ("a photo of", 37)])
def test_no_text_reaches_beyond_the_positions(prompt: str, most: int) -> None:
    graphs = blip.graphs("caption", prompt=prompt, max_new_tokens=4)
    trial = open_trial(graphs)
    steps = trial.signature.dims["steps"]
    assert (steps.low, steps.high) == (1, most)
    feeds = trial.prepare(fitted(trial, 0), [])
    last: list[int] = []
    graphs.sessions["text_decoder"].spoil = lambda feeds: last.append(int(feeds["position_ids"].max()))
    trial.run(feeds | {"written": np.full((1, most), blip.word_ids("cat")[0])})
    assert last[-1] == blip.POSITIONS - 1


def test_a_bundle_with_beams_is_judged_by_the_best_token_each_time() -> None:
    def written(n_beams: int) -> list[tuple[int, ...]]:
        trial = open_trial(blip.graphs("caption", beams=n_beams, max_new_tokens=8))
        found = [trial.prepare(fitted(trial, number), []) for number in range(3)]
        for feeds in found:
            np.testing.assert_array_equal(trial.run(feeds)["tokens"], feeds["written"])
        return [tuple(feeds["written"][0].tolist()) for feeds in found]

    task = task_of(blip.graphs("caption", beams=3, max_new_tokens=8), TaskOptions())
    assert isinstance(task, Captioner)
    with_beams = [one.token_ids[1:] for one in task.caption(list(blip.pictures()[:3]))]
    assert written(3) == written(1) != with_beams


def test_what_is_penalized_is_the_exact_text_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = open_trial(blip.graphs("caption", max_new_tokens=8, min_new_tokens=8))
    how = Generation(max_new_tokens=8, min_new_tokens=8, repetition_penalty=5.0)
    monkeypatch.setattr(GenerationSettings, "how", how)
    trial = open_trial(blip.graphs("caption", max_new_tokens=8, min_new_tokens=8))
    for number in range(3):
        feeds = trial.prepare(fitted(trial, number), [])
        np.testing.assert_array_equal(trial.run(feeds)["tokens"], feeds["written"])
        assert (plain.run(feeds)["tokens"] != feeds["written"]).any()
