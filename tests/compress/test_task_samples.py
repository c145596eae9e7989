from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from anyport.compress.methods import Int8Dynamic, Int8Static
from anyport.compress.samples import Samples
from anyport.compress.task_samples import Tap, TappedSamples, TaskPictures, divide_pictures
from anyport.task import TaskOptions
from anyport.task.trials import PartSessions, open_trial
from tests.task import blip

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.runtime import Session
    from anyport.task.trials import Trial

N = 6


@pytest.fixture
def photos(tmp_path: Path) -> TaskPictures:
    paths = []
    for number, pixels in enumerate(blip.pictures(N)):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return TaskPictures("photos", tuple(paths), ("a cat ?", "what is it ?"), 1)


class Bench:
    """The parts of a task, open; each trial may have one of them exchanged."""

    def __init__(self, task: str) -> None:
        writes = {} if task == "match" else {"max_new_tokens": 5, "min_new_tokens": 5}
        self.graphs = blip.graphs(task, **writes)
        self.exact = {part: self.graphs.open(part, TaskOptions()) for part in self.graphs.parts}

    def trial(self, part: str = "", session: Session | None = None) -> Trial:
        sessions: dict[str, Session] = {**self.exact}
        if session is not None:
            sessions[part] = session
        own = self.graphs
        return open_trial(PartSessions(own.task, own.settings, own.parts, sessions, own.read_bytes))


def test_pictures_are_divided_and_texts_go_around(photos: TaskPictures) -> None:
    bench = Bench("answer")
    first, second = divide_pictures(photos, bench.trial(), [Int8Static()])
    assert first is not None
    assert isinstance(second, Samples)
    assert (first.places, second.places) == ((0, 2, 4), (1, 3, 5))
    assert (first.name, second.name) == ("photos (3 of 6)", "photos (3 others of 6)")
    assert [len(list(one)) for one in (first, second)] == [len(first), len(second)]
    asked = [feeds["texts"][0, 0].tolist() for feeds in second]
    assert asked == [blip.word_ids("what is it ?")] * 3
    alone, everything = divide_pictures(photos, bench.trial(), [Int8Dynamic()])
    assert alone is None
    assert everything.places == tuple(range(N))


def test_a_text_is_written_once_and_the_picture_read_at_each_pass(photos: TaskPictures) -> None:
    bench = Bench("answer")
    _, samples = divide_pictures(photos, bench.trial(), [Int8Dynamic()])
    passes = [list(samples), list(samples)]
    assert bench.exact["text_decoder"].n_runs == 5 * N
    for one, other in zip(*passes, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def tapped(bench: Bench, photos: TaskPictures, part: str) -> TappedSamples:
    _, samples = divide_pictures(photos, bench.trial(), [Int8Dynamic()])
    return TappedSamples(samples, bench.exact[part], lambda session: bench.trial(part, session))


def test_each_picture_gives_another_step_of_the_decoder(photos: TaskPictures) -> None:
    samples = tapped(Bench("answer"), photos, "text_decoder")
    assert (len(samples), samples.name) == (N, "photos (6 of 6)")
    for _ in range(2):  # any number of passes
        pasts = [feeds["past_0_k"].shape[2] for feeds in samples]
        assert pasts == [4, 1, 2, 3, 4, 0]  # the first picture counts the steps, and gives the last of them


def test_a_part_that_runs_once_stops_the_task_there(photos: TaskPictures) -> None:
    bench = Bench("answer")
    samples = tapped(bench, photos, "vision_encoder")
    list(samples.samples)  # writes the texts
    before = bench.exact["text_decoder"].n_runs
    found = list(samples)
    assert [feeds["pixel_values"].shape for feeds in found] == [(1, 3, 32, 32)] * N
    assert bench.exact["text_decoder"].n_runs == before + 5  # for the first picture, which counts the runs
    assert len({feeds["pixel_values"].tobytes() for feeds in found}) == N


def test_what_is_noted_is_what_the_part_is_fed(photos: TaskPictures) -> None:
    bench = Bench("match")
    tap = Tap(bench.exact["multimodal_encoder"])
    assert (tap.inputs, tap.outputs) == (tap.session.inputs, tap.session.outputs)
    trial = bench.trial("multimodal_encoder", tap)
    _, samples = divide_pictures(photos, bench.trial(), [Int8Dynamic()])
    trial.run(next(iter(samples)))
    assert tap.n_runs == 1
    assert tap.fed.keys() == {"input_ids", "attention_mask", "image_embeds"}
    tap.close()
    assert bench.exact["multimodal_encoder"].is_open
