"""The distances between two arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anyport.verify import Floor
from anyport.verify.finding import index_text, json_number, measure_distance
from tests.verify.fakes import f32

FLOOR = Floor(1e-6, 1e-6, "given")


def test_the_distances() -> None:
    numbers = measure_distance(f32([[1, 2], [3, 4]]), f32([[1, 2.5], [3, 3]]), FLOOR)
    assert (numbers.n_elements, numbers.n_different) == (4, 2)
    assert (numbers.max_abs, numbers.index, numbers.expected, numbers.got) == (1.0, (1, 1), 4.0, 3.0)
    assert numbers.max_rel == 0.25
    assert numbers.mse == pytest.approx(1.25 / 4)
    assert numbers.rms == pytest.approx(math.sqrt(1.25 / 4))
    assert numbers.l1 == 1.5
    assert numbers.l2 == pytest.approx(math.sqrt(1.25))
    assert numbers.scale_rms == pytest.approx(math.sqrt(7.5))
    assert numbers.cosine_min == pytest.approx(21 / (5 * math.sqrt(18)))
    assert numbers.top1_agreement == 0.5


def test_equal_arrays() -> None:
    array = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
    numbers = measure_distance(array, array.copy(), FLOOR)
    assert (numbers.max_abs, numbers.mse, numbers.l1, numbers.l2, numbers.n_different) == (0, 0, 0, 0, 0)
    assert numbers.cosine_min == pytest.approx(1)
    assert numbers.top1_agreement is None


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 4), (2, 0)])
def test_odd_shapes(shape: tuple[int, ...]) -> None:
    numbers = measure_distance(np.ones(shape, np.float32), np.ones(shape, np.float32) * 2, FLOOR)
    assert numbers.max_abs == (1.0 if math.prod(shape) else 0.0)
    assert numbers.index == ((0,) * len(shape) if math.prod(shape) else ())


def test_values_under_the_floor_are_no_scale() -> None:
    numbers = measure_distance(f32([1e-9, 1.0]), f32([1e-7, 1.0]), FLOOR)
    assert numbers.max_rel == 0
    assert measure_distance(f32([1e-9]), f32([-1e-9]), FLOOR).cosine_min is None


def test_whole_numbers_and_truth_values() -> None:
    numbers = measure_distance(np.array([1, 5]), np.array([1, 7]), None)
    assert (numbers.n_different, numbers.max_abs, numbers.expected, numbers.got) == (1, 2.0, 5.0, 7.0)
    assert measure_distance(np.array([True, False]), np.array([True, True]), None).n_different == 1


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_tiny_and_huge_numbers_neither_vanish_nor_overflow(scale: float) -> None:
    numbers = measure_distance(
        np.array([3.0, 4.0]) * scale, np.array([3.0, 4.5]) * scale, Floor(0, 0, "given")
    )
    assert numbers.l2 == pytest.approx(0.5 * scale)
    assert numbers.cosine_min == pytest.approx(0.9978, rel=1e-3) or scale == 1e-200


def test_a_flipped_row_has_cosine_minus_one() -> None:
    array = f32([[1, 2], [3, 4]])
    assert measure_distance(array, array * f32([[1], [-1]]), FLOOR).cosine_min == pytest.approx(-1)


def test_texts() -> None:
    assert index_text((0, 417)) == "(0, 417)"
    assert index_text((3,)) == "(3)"
    assert json_number(math.nan) == "nan"
    assert json_number(1.5) == 1.5
