"""Arrays in, arrays out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import anyport
from anyport.errors import InputError, UsageError
from anyport.task.tensors import check_settings, read_feeds
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.task.tensors import TensorTask

ONES = np.ones((2, 3), np.float32)


@pytest.fixture
def task(tmp_path: Path) -> TensorTask:
    found: TensorTask = anyport.open_task(networks.affine(tmp_path / "a.onnx"))
    return found


def save(path: Path, array: np.ndarray = ONES) -> str:
    np.save(path, array)
    return str(path)


def test_arrays_go_through(task: TensorTask) -> None:
    np.testing.assert_array_equal(task.run({"x": ONES})["y"], 3 * ONES)
    assert task.session() is task.session("network")
    task.close()
    task.close()


def test_a_part_is_named_when_it_is_not_there(task: TensorTask) -> None:
    with pytest.raises(UsageError, match=r"the model has no part 'vison' \(known: 'network'\)"):
        task.run({"x": ONES}, part="vison")


def test_npy_files_go_through(task: TensorTask, tmp_path: Path) -> None:
    found = task.answer([f"x={save(tmp_path / 'x.npy')}"], {})
    assert found.lines == ("  y   float32[2, 3]   min 3, mean 3, max 3",)
    assert found.record["outputs"]["y"]["values"] == (3 * ONES).tolist()


def test_an_npz_goes_through_and_comes_out(task: TensorTask, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=ONES)
    target = tmp_path / "out.npz"
    found = task.answer([str(tmp_path / "in.npz")], {"output": str(target)})
    assert (found.lines[-1], found.record["file"]) == (f"  written to {target}", str(target))
    np.testing.assert_array_equal(read_feeds([str(target)])["y"], 3 * ONES)
    with pytest.raises(UsageError, match="'out.npz' exists already"):
        task.answer([str(tmp_path / "in.npz")], {"output": str(target)})
    task.answer([str(tmp_path / "in.npz")], {"output": str(target), "force": True})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x"], "'x' is no input"),
        (["x.npy"], "'x.npy' is no input"),
        (["x=x.txt"], "'x=x.txt' is no input"),
        (["a.npz", "b.npz"], "'a.npz' is no input"),
    ],
)
def test_other_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_feeds(words)
    assert caught.value.what == message
    assert caught.value.do == "anyport run BUNDLE NAME=FILE.npy…, or one FILE.npz"


def test_an_input_given_twice_is_refused(tmp_path: Path) -> None:
    word = f"x={save(tmp_path / 'x.npy')}"
    with pytest.raises(UsageError, match="input 'x' is given twice"):
        read_feeds([word, word])


def test_files_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "o.npz", x=objects)
    (tmp_path / "t.npy").write_text("text", encoding="utf-8")
    (tmp_path / "t.npz").write_text("PK text", encoding="utf-8")
    whole = (tmp_path / "o.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npy").touch()
    words = [
        "x={}/o.npy",
        "{}/o.npz",
        "x={}/t.npy",
        "{}/t.npz",
        "{}/cut.npz",
        "x={}/empty.npy",
        "x={}/nope.npy",
    ]
    for word in words:
        with pytest.raises(InputError, match="cannot be read as arrays|there is no file"):
            read_feeds([word.format(tmp_path)])


def test_the_output_must_be_an_npz(task: TensorTask) -> None:
    with pytest.raises(UsageError, match=r"the output file 'out\.txt' must end in \.npz"):
        task.answer([], {"output": "out.txt"})


def test_there_are_no_settings() -> None:
    check_settings({}, {})
    with pytest.raises(UsageError, match="a model without a task has no settings, but there is 'labels'"):
        check_settings({"labels": []}, {})
