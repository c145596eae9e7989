from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from anyport.compress.methods import Int8Dynamic, Int8Static
from anyport.compress.samples import Samples, Share, words_for
from anyport.compress.task_samples import (
    Tap,
    TappedSamples,
    TaskPictures,
    TaskSamples,
    check_pictures,
    divide_pictures,
    keep_clear,
)
from anyport.errors import InputError
from anyport.task import TaskOptions
from anyport.task.graphs import OpenGraphs
from anyport.task.picture_settings import fit_picture
from anyport.task.trials import TRIALS, open_trial, unfilled
from anyport.verify import MIN_SAMPLES, Status, choose_metrics, evaluate, record
from tests.task import blip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anyport.compress.methods import Method
    from anyport.compress.task_samples import ClearSamples
    from anyport.runtime import Session
    from anyport.task.picture_settings import PictureSettings
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
        writes = {} if task in {"embed", "match"} else {"max_new_tokens": 5, "min_new_tokens": 5}
        self.graphs = blip.graphs(task, **writes)
        self.exact = {part: self.graphs.open(part, TaskOptions()) for part in self.graphs.parts}

    def trial(self, part: str = "", session: Session | None = None) -> Trial:
        sessions: dict[str, Session] = {**self.exact}
        if session is not None:
            sessions[part] = session
        own = self.graphs
        return open_trial(OpenGraphs(own.task, own.settings, own.parts, sessions, own.read_bytes))


def test_pictures_are_divided_and_texts_go_around(photos: TaskPictures) -> None:
    bench = Bench("answer")
    first, second = divide_pictures(photos, bench.trial(), [Int8Static()])
    assert first is not None
    assert isinstance(second, Samples)
    assert (first.places, second.places) == ((0, 2, 4), (1, 3, 5))
    assert (first.name, second.name) == ("photos (3 of 6)", "photos (3 others of 6)")
    assert [len(list(one)) for one in (first, second)] == [len(first), len(second)]
    words = [blip.word_ids(text) for text in photos.texts]
    for share in (first, second):  # each begins anew: every second picture is the other's
        assert [unfilled(feeds["texts"][0, 0], 0) for feeds in share] == [words[0], words[1], words[0]]
    alone, everything = divide_pictures(photos, bench.trial(), [Int8Dynamic()])
    assert alone is None
    assert everything.places == tuple(range(N))


FEWEST = ("a cat", "what is it ?")


def many(folder: Path, task: str, n_texts: int) -> TaskPictures:
    """Return pictures of which as many judge as are needed, and as many others set ranges."""
    paths = []
    for number, pixels in enumerate(blip.pictures(2 * MIN_SAMPLES)):
        paths.append(folder / f"{number:03}.png")
        Image.fromarray(pixels).save(paths[-1])
    return TaskPictures("photos", tuple(paths), FEWEST[:n_texts], TRIALS[task].n_texts)


@pytest.mark.parametrize("task", TRIALS)
def test_the_fewest_texts_are_enough_to_pass(tmp_path: Path, task: str) -> None:
    """Answers that are the same for every picture say nothing, and could never pass."""
    trial = Bench(task).trial()
    n_texts = TRIALS[task].least_texts
    calibration, judging = divide_pictures(many(tmp_path, task, n_texts), trial, [Int8Static()])
    assert calibration is not None
    assert len(calibration) == len(judging) == MIN_SAMPLES
    recording = record(trial, judging, trial.signature, choose_metrics(None, trial.outputs))
    assert evaluate(recording, trial).status is Status.PASS


def test_one_text_is_too_few_where_it_has_features(tmp_path: Path) -> None:
    trial = Bench("embed").trial()
    _, judging = divide_pictures(many(tmp_path, "embed", 1), trial, [Int8Static()])
    recording = record(trial, judging, trial.signature, choose_metrics(None, trial.outputs))
    assert evaluate(recording, trial).status is Status.INCONCLUSIVE


@pytest.mark.parametrize(("n_all", "n_texts", "n_kept"), [(12, 4, 3), (12, 3, 4), (10, 2, 5), (9, 1, 4)])
def test_those_that_fit_are_spread_over_pictures_and_texts(
    photos: TaskPictures, n_all: int, n_texts: int, n_kept: int
) -> None:
    texts = tuple(f"text {number}" for number in range(n_texts))
    pictures = replace(photos, paths=photos.paths * 2, texts=texts)
    trial: Any = None
    samples = TaskSamples("photos", pictures, tuple(range(n_all)), {i: i for i in range(n_all)}, trial)
    kept = samples.spread(n_kept)
    assert len(kept) == n_kept
    assert list(kept.places) == sorted(set(kept.places))
    counts = Counter(kept.turns[place] % n_texts for place in kept.places)
    assert max(counts.values()) - min(counts[text] for text in range(n_texts)) <= 1
    first = sum(place < n_all / 2 for place in kept.places)
    assert abs(first - n_kept / 2) <= n_texts / 2 + 0.5
    assert samples.spread(n_all) is samples


def test_a_picture_that_is_exchanged_keeps_its_texts(photos: TaskPictures) -> None:
    trial: Any = Doubtful(Bench("caption").trial(), frozenset({1}))
    calibration, judging = divide_pictures(photos, trial, [Int8Static()])
    assert calibration is not None
    assert (calibration.turns, judging.turns) == ({0: 0, 2: 1, 4: 2}, {1: 0, 3: 1, 5: 2})
    found = keep_clear(calibration, judging, 1e-4)
    assert found.calibration is not None
    assert (found.calibration.places, found.judging.places) == ((1, 2, 4), (0, 3, 5))
    for share in (found.calibration, found.judging):
        assert share.turns == {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2}


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


def test_what_is_wrong_in_a_run_names_its_picture(photos: TaskPictures) -> None:
    bench = Bench("answer")
    _, judging = divide_pictures(photos, bench.trial(), [Int8Static()])
    samples = TappedSamples(judging, bench.exact["text_decoder"], bench.trial)
    assert words_for(samples, 1) == f"'{photos.paths[3]}'"
    share = Share("some", samples, frozenset({0, 2}))
    assert words_for(share, 1) == f"'{photos.paths[5]}'"


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


@dataclass
class Doubtful:
    """A trial that is unsure of some pictures, by their number."""

    inner: Trial
    unclear: frozenset[int]

    @property
    def settings(self) -> PictureSettings:
        return self.inner.settings

    def prepare(self, pixels: np.ndarray, _texts: Sequence[str]) -> dict[str, np.ndarray]:
        return {"picture": pixels[None]}

    def margin(self, feeds: Mapping[str, np.ndarray]) -> float:
        fitted = [fit_picture(Image.fromarray(one), self.settings, "") for one in blip.pictures(N)]
        known = [np.array_equal(feeds["picture"][0], pixels) for pixels in fitted]
        return 1e-9 if known.index(True) in self.unclear else 1e-2


def cleared(photos: TaskPictures, method: Method, *unclear: int) -> ClearSamples:
    trial: Any = Doubtful(Bench("caption").trial(), frozenset(unclear))
    return keep_clear(*divide_pictures(photos, trial, [method]), 1e-4)


def test_only_clear_choices_judge(photos: TaskPictures) -> None:
    found = cleared(photos, Int8Dynamic(), 1, 4)
    assert found.calibration is None
    assert found.judging.places == (0, 2, 3, 5)
    assert (found.n_unclear, found.judging.name) == (2, "photos (6 of 6), 2 left out")
    same = cleared(photos, Int8Dynamic())
    assert (same.n_unclear, same.judging.name, len(same.judging)) == (0, "photos (6 of 6)", N)


def test_unclear_ones_set_ranges_instead(photos: TaskPictures) -> None:
    """0, 2 and 4 would have set the ranges: 2 takes the place of 1, since 0 is as unclear."""
    found = cleared(photos, Int8Static(), 0, 1)
    assert found.calibration is not None
    assert (found.calibration.places, found.judging.places) == ((0, 1, 4), (2, 3, 5))
    assert found.n_unclear == 2
    found = cleared(photos, Int8Static(), 0, 1, 2, 3, 4)
    assert found.judging.places == (5,)
    assert found.calibration is not None
    assert found.calibration.places == (0, 2, 4)


def test_every_picture_that_is_used_is_read(photos: TaskPictures) -> None:
    settings = Bench("caption").trial().settings
    for method in (Int8Dynamic(), Int8Static()):
        check_pictures(photos, settings, [method])
    photos.paths[3].write_bytes(photos.paths[3].read_bytes()[:-100])
    with pytest.raises(InputError, match=r"3\.png is damaged or cut off"):
        check_pictures(photos, settings, [Int8Static()])
