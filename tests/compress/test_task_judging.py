from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.compress.gates import check_metric
from anyport.compress.task_judging import EqualTexts, TaskJudge
from anyport.compress.task_samples import TaskPictures, divide_pictures
from anyport.errors import CompressError
from anyport.verify import CosineSimilarity, Status, choose_metrics, record
from tests.build.trained_blip import write_pictures
from tests.compress.test_task_samples import Bench
from tests.task import blip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anyport.runtime import Session
    from anyport.tensors import TensorSpec

Arrays = dict[str, np.ndarray]


@dataclass
class Spoiled:
    """A session whose answers a test changes."""

    session: Session
    change: Callable[[Arrays], Arrays]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.session.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        return self.change(self.session.run(feeds))

    def close(self) -> None:
        self.session.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> TaskPictures:
    folder: Path = write_pictures(tmp_path_factory.mktemp("judging") / "photos", 64)
    return TaskPictures("photos", tuple(sorted(folder.iterdir())))


def judge_of(photos: TaskPictures, part: str, limits: dict[str, CosineSimilarity] | None = None) -> TaskJudge:
    bench = Bench("caption")
    trial = bench.trial()
    _, samples = divide_pictures(photos, trial, [])
    recording = record(trial, samples, trial.signature, choose_metrics(None, trial.outputs))
    return TaskJudge(
        part,
        blip.signature(part),
        bench.exact[part],
        recording,
        lambda session: bench.trial(part, session),
        limits or {},
    )


def test_the_exact_graph_passes_with_the_cosine_of_every_output(photos: TaskPictures) -> None:
    judge = judge_of(photos, "text_decoder")
    found = judge(judge.exact)
    assert found.passed
    assert [one.output for one in found.measures][:2] == ["tokens", "text_decoder/logits"]
    assert all(one.value == pytest.approx(1.0) for one in found.measures)
    assert found.n_samples == 64
    [logits] = [one for one in found.measures if one.output == "text_decoder/logits"]
    assert logits.text.startswith("cosine similarity 1.00000 over 320 samples")  # five steps of each


def test_a_ruined_part_is_refused_with_both_figures(photos: TaskPictures) -> None:
    judge = judge_of(photos, "vision_encoder")
    noise = np.random.default_rng(0)
    ruined = Spoiled(
        judge.exact,
        lambda found: {n: (a + 2 * noise.standard_normal(a.shape)).astype(a.dtype) for n, a in found.items()},
    )
    found = judge(ruined)
    statuses = {one.output: one.status for one in found.measures}
    assert statuses == {"tokens": Status.FAIL, "vision_encoder/image_embeds": Status.FAIL}
    with pytest.raises(CompressError) as err:
        check_metric("int8", found)
    assert err.value.what.startswith("int8 does not hold the metric: 'vision_encoder/image_embeds' cosine")
    assert err.value.what.endswith("0.98400 needed: it answers too differently")


def test_a_limit_of_the_users_own_is_kept(photos: TaskPictures) -> None:
    judge = judge_of(photos, "vision_encoder", {"image_embeds": CosineSimilarity(least=0.95)})
    found = judge(judge.exact)
    assert [one.allowance for one in found.measures] == [0.95, 0.95]


def test_a_part_that_forgets_the_picture_is_refused(photos: TaskPictures) -> None:
    judge = judge_of(photos, "cross_keys")
    found = judge(Spoiled(judge.exact, lambda found: {n: np.zeros_like(a) for n, a in found.items()}))
    assert {one.output: one.status for one in found.measures}["tokens"] is Status.FAIL


def test_equal_texts_are_counted(photos: TaskPictures) -> None:
    bench = Bench("caption")
    _, samples = divide_pictures(photos, bench.trial(), [])
    feeds = [one for _, one in zip(range(3), samples, strict=False)]
    counted = EqualTexts(bench.trial())
    counted.run(feeds[0])
    counted.run(feeds[0] | {"picture": feeds[1]["picture"], "written": feeds[0]["written"][:, ::-1].copy()})
    assert counted.line == "1 of 2 texts wholly equal"
    assert counted.inputs == counted.trial.inputs
    matching = Bench("match").trial()
    spoken = EqualTexts(matching)
    spoken.run(matching.prepare(feeds[0]["picture"][0], ["a cat", "a dog"]))
    assert spoken.line == ""
