"""Losses, values and limits of the three metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anyport.errors import UsageError
from anyport.tensors import tensor
from anyport.verify import METRICS, CosineSimilarity, Psnr, TopOneAgreement, choose_metrics, metric_from
from anyport.verify.metric import LAXEST_MULTIPLE, is_limit, laxest
from tests.verify.fakes import f16, f32

RNG = np.random.default_rng(0)
ANSWERS = RNG.normal(size=(1, 5, 8)).astype(np.float32)


@pytest.mark.parametrize("word", sorted(METRICS))
def test_laws_that_hold_for_every_metric(word: str) -> None:
    metric = METRICS[word].fitted(-3.0, 3.0)
    assert metric.loss(ANSWERS, ANSWERS, None) == pytest.approx(0, abs=1e-12)
    assert metric.loss(ANSWERS, -ANSWERS, None) > metric.loss_at(metric.least)
    for loss in (0.001, 0.02, 0.3):
        assert metric.loss_at(metric.value(loss)) == pytest.approx(loss)
    assert metric.value(0.01) > metric.value(0.1)
    assert LAXEST_MULTIPLE * metric.loss_at(metric.least) == pytest.approx(metric.loss_at(laxest(word)))
    nothing = np.zeros((1, 5), bool)
    assert math.isnan(metric.loss(ANSWERS, ANSWERS, nothing))
    some = np.array([[True, False, True, True, False]])
    garbage = np.where(some[..., None], ANSWERS, np.float32(np.inf))
    assert metric.loss(ANSWERS, garbage, some) == pytest.approx(0, abs=1e-12)
    assert math.isnan(metric.loss(ANSWERS[:, :0], ANSWERS[:, :0], None))


@pytest.mark.parametrize(
    ("reference", "candidate", "loss"),
    [
        ([[1, 2, 3]], [[0, 0, 9]], 0),
        ([[1, 2, 3]], [[0, 9, 0]], 1),
        ([[1, 3, 3]], [[0, 9, 0]], 0),  # both are right
        ([[1, 3, 3]], [[0, 0, 9]], 0),
        ([[1, 3, 3 - 1e-6]], [[0, 0, 9]], 0),  # closer than rounding
        ([[1, 3, 3 - 1e-4]], [[0, 0, 9]], 1),
        ([[1, 2, 3]], [[5, 5, 5]], 1),  # who does not decide chooses the first
        ([[3, 2, 1]], [[5, 5, 5]], 0),
        ([[-np.inf, 2, 3]], [[-np.inf, 0, 9]], 0),
        ([[1, 2, 3], [1, 2, 3]], [[0, 0, 9], [9, 0, 0]], 0.5),
    ],
)
def test_top_one(reference: object, candidate: object, loss: float) -> None:
    assert TopOneAgreement().loss(f32(reference), f32(candidate), None) == loss


def test_top_one_of_maps_and_of_whole_numbers() -> None:
    maps = RNG.normal(size=(1, 4, 6, 6)).astype(np.float32)
    other = maps.copy()
    other[0, :, 0, 0] = -maps[0, :, 0, 0]
    assert TopOneAgreement(axis=1).loss(maps, other, None) == pytest.approx(1 / 36)
    assert TopOneAgreement().loss(np.int64([1, 2, 3, 4]), np.int64([1, 2, 3, 5]), None) == 0.25
    assert TopOneAgreement().loss(np.array(7), np.array(7), None) == 0


@pytest.mark.parametrize(
    ("reference", "candidate", "loss"),
    [
        ([[3, 4, 0]], [[6, 8, 0]], 0),
        ([[3, 4, 0]], [[-3, -4, 0]], 2),
        ([[0, 0, 0]], [[0, 0, 0]], 0),
        ([[0, 0, 0]], [[0, 1, 0]], 1),
        ([[1e30, 0, 0]], [[1e-30, 0, 0]], 0),
        ([[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [1, 0, 0]], 0.5),
    ],
)
def test_cosine(reference: object, candidate: object, loss: float) -> None:
    assert CosineSimilarity().loss(f32(reference), f32(candidate), None) == pytest.approx(loss)


def test_a_map_is_one_vector() -> None:
    first = f32(np.zeros((1, 2, 1, 3)))
    first[0, 0] = 1
    assert CosineSimilarity().loss(first, np.ones_like(first), None) == pytest.approx(1 - 0.5**0.5)


def test_psnr_is_that_of_the_books() -> None:
    metric = Psnr().fitted(0.0, 255.0)
    assert metric.peak == 255.0
    assert metric.value(metric.loss(f32([[100.0]]), f32([[101.0]]), None)) == pytest.approx(48.1308, abs=1e-3)
    assert Psnr(peak=1.0).fitted(0.0, 255.0).peak == 1.0
    assert metric.value(0.0) == 100.0
    assert metric.value(math.inf) == -math.inf
    assert math.isfinite(Psnr().fitted(2.0, 2.0).loss(f16([2.0]), f16([2.0]), None))


@pytest.mark.parametrize(
    ("task", "name", "notation", "wanted"),
    [
        ("classify", "output", "float32[batch, 1000]", TopOneAgreement()),
        (None, "logits", "float32[batch, sequence, 30522]", TopOneAgreement()),
        (None, "logits", "float32[batch, 21, height, width]", TopOneAgreement(axis=1)),
        (None, "class_probabilities", "float32[batch, 5]", TopOneAgreement()),
        (None, "label", "int64[batch]", TopOneAgreement()),
        (None, "embedding", "float32[batch, 384]", CosineSimilarity()),
        (None, "hidden_states", "float32[batch, sequence, 768]", CosineSimilarity()),
        (None, "features", "float32[batch, 256, height//16, width//16]", CosineSimilarity()),
        (None, "picture", "float32[batch, 3, height, width]", Psnr()),
        (None, "picture", "float32[batch, 3, height, width] 0..1", Psnr(peak=1.0)),
        (None, "picture", "uint8[batch, 3, height, width]", Psnr(peak=255.0)),
        (None, "score", "float32[batch, 1]", Psnr()),
        (None, "age", "float32[batch]", Psnr()),
        (None, "loss", "float32[]", Psnr()),
    ],
)
def test_the_metric_follows_from_the_output(
    task: str | None, name: str, notation: str, wanted: object
) -> None:
    assert choose_metrics(task, [tensor(name, notation)]) == {name: wanted}


def test_the_notation() -> None:
    assert metric_from("top-1", axis=1) == TopOneAgreement(axis=1)
    assert metric_from("psnr:35") == Psnr(least=35.0)
    assert is_limit("cosine", 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin", "there is no metric 'cosin' (did you mean 'cosine'?)"),
        ("top-1:0.5", "the metric 'top-1' can be held to 80 % or more, not to 0.5"),
        ("top-1:1.5", "the metric 'top-1' can be held to 80 % or more, not to 1.5"),
        ("cosine:nan", "the metric 'cosine' can be held to 0.92000 or more, not to nan"),
        ("psnr:inf", "the metric 'psnr' can be held to 24.0 dB or more, not to inf"),
        ("psnr:", "'' is no limit for the metric 'psnr'"),
    ],
)
def test_limits_that_mean_nothing(text: str, message: str) -> None:
    with pytest.raises(UsageError) as err:
        metric_from(text)
    assert err.value.what == message
