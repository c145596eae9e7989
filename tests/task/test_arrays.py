"""Arrays in a file, arrays in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from anyport.errors import UsageError
from anyport.task.arrays import npz_target, summary, write_arrays

if TYPE_CHECKING:
    from pathlib import Path


def test_every_name_and_type_comes_back(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {
        "file": np.arange(3),
        "allow_pickle": np.ones((2, 0), np.float16),
        "a/b:0": np.array(True),
    }
    write_arrays(tmp_path / "out.npz", arrays, force=False)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:  # noqa: TID251 -- our own file
        assert list(found.files) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out.npz"
    target.write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="exists"):
        write_arrays(target, {"y": np.ones(1)}, force=False)
    assert target.read_text(encoding="utf-8") == "mine"
    write_arrays(target, {"y": np.ones(1)}, force=True)
    assert target.read_bytes()[:2] == b"PK"


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([[1.5, 2.5]], np.float32), "float32[1, 2]   min 1.5, mean 2, max 2.5"),
        (np.array([np.nan, 1, np.inf]), "float64[3]   min 1, mean 1, max 1, 2 not finite"),
        (np.array([np.nan]), "float64[1], 1 not finite"),
        (np.zeros((0, 3), np.int64), "int64[0, 3]"),
        (np.array([True, False]), "bool[2]   min 0, mean 0.5, max 1"),
    ],
)
def test_an_array_in_words(array: np.ndarray, text: str) -> None:
    assert summary(array)["text"] == text


def test_small_arrays_are_shown_whole() -> None:
    assert summary(np.arange(16))["values"] == list(range(16))
    assert "values" not in summary(np.arange(17))
    assert "values" not in summary(np.array([np.nan]))


def test_a_target_is_checked_before_anything_is_computed(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    assert npz_target(str(path), force=False) == path
    with pytest.raises(UsageError, match="the output file 'out.npy' must end in .npz"):
        npz_target("out.npy", force=False)
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="out.npz' exists"):
        npz_target(str(path), force=False)
    assert npz_target(str(path), force=True) == path
