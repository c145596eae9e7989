"""Arrays that are not computed twice."""

from __future__ import annotations

import numpy as np

from anyport.task.remembered import Remembered


class Squares:
    """Computes squares, and notes which."""

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.remembered = Remembered(max_bytes)
        self.made: list[int] = []

    def __call__(self, *numbers: int) -> list[int]:
        def make(places: list[int]) -> list[np.ndarray]:
            self.made += [numbers[place] for place in places]
            return [np.full(10, numbers[place] ** 2, np.int64) for place in places]

        return [int(array[0]) for array in self.remembered.find(numbers, make)]


def test_each_is_computed_once_in_any_order() -> None:
    squares = Squares()
    assert squares(3, 1, 3, 2) == [9, 1, 9, 4]
    assert squares.made == [3, 1, 2]
    assert squares(2, 5, 1) == [4, 25, 1]
    assert squares.made == [3, 1, 2, 5]
    assert (len(squares.remembered), squares.remembered.size_bytes) == (4, 4 * 80)
    assert squares() == []


def test_those_unused_for_longest_go_first() -> None:
    squares = Squares(max_bytes=3 * 80)
    squares(1, 2, 3)
    squares(1)
    squares(4)  # 2 goes
    squares.made.clear()
    assert squares(1, 3, 4, 2) == [1, 9, 16, 4]
    assert squares.made == [2]
    assert squares.remembered.size_bytes == 3 * 80


def test_more_than_fits_is_still_returned() -> None:
    squares = Squares(max_bytes=100)
    assert squares(1, 2, 3) == [1, 4, 9]
    assert squares.remembered.size_bytes <= 100
    tiny = Squares(max_bytes=10)
    assert tiny(1, 2) == [1, 4]
    assert (len(tiny.remembered), tiny.remembered.size_bytes) == (0, 0)


def test_it_can_be_forgotten() -> None:
    squares = Squares()
    squares(1)
    squares.remembered.forget()
    assert (len(squares.remembered), squares.remembered.size_bytes) == (0, 0)
    squares(1)
    assert squares.made == [1, 1]
