from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from anyport.compress.methods import Fp16Storage, Int8Dynamic, Int8Static
from anyport.compress.samples import RandomSamples, Samples, check_words, divide, samples_from, split
from anyport.errors import InputError, SourceError, UsageError
from anyport.tensors import Signature, tensor
from tests.compress.smallnets import DIMS, PICTURES, WORDS, Arrays

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.compress.methods import Method


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "cats").mkdir(parents=True)
    for place, name in enumerate(["b.png", "a.jpg", "cats/c.PNG"]):
        Image.new("RGB", (20, 30), (10 * place, 0, 0)).save(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "notes.txt").write_text("no picture", encoding="utf-8")
    (tmp_path / "calibrate.py").write_text(
        "import numpy as np\n"
        "def words():\n    for i in range(5):\n        yield {'ids': np.full((1, 6), i)}\n"
        "def wrong():\n    return [{'ids': np.zeros((1, 7), np.int64)}]\n"
        "def lists():\n    return [[1]]\n"
        "def none():\n    return []\n"
        "def number():\n    return 3\n"
        "def raising():\n    yield {'ids': np.zeros((1, 6), np.int64)}\n    raise KeyError('label')\n"
        "once = iter([{'ids': np.zeros((1, 6), np.int64)}] * 5)\n"
        "def spent():\n    return once\n"
        "rows = [{'ids': np.zeros((1, 6), np.int64)}]\n",
        encoding="utf-8",
    )
    return tmp_path


def test_a_folder_of_pictures(folder: Path) -> None:
    found = samples_from("pictures", PICTURES, folder)
    assert isinstance(found, Samples)
    assert (len(found), found.name) == (3, "pictures (3 pictures, pixels / 255 for want of settings)")
    [first, _, last] = list(found)
    assert (first["x"].shape, first["x"].dtype) == ((1, 3, 16, 16), np.float32)
    assert last["x"][0, 0, 0, 0] == pytest.approx(20 / 255)
    settings = {"mean": [0.5] * 3, "std": [0.5] * 3, "labels": ["a"]}
    scaled = samples_from("pictures", PICTURES, folder, settings)
    assert scaled.name == "pictures (3 pictures)"
    assert next(iter(scaled))["x"].min() == -1


def test_a_function_is_called_anew_for_each_pass(folder: Path) -> None:
    found = samples_from("calibrate.py:words", WORDS, folder)
    assert len(found) == 5
    assert [int(feeds["ids"][0, 0]) for feeds in found] == [0, 1, 2, 3, 4]
    assert len(list(found)) == 5


def test_random_numbers_say_so_and_are_the_same_again() -> None:
    found = samples_from("random", WORDS, None)  # type: ignore[arg-type]
    assert (found.name, len(found)) == ("random numbers, not your data", 128)
    few = RandomSamples(WORDS, 3)
    first, second = list(few), list(few)
    assert all((a["ids"] == b["ids"]).all() for a, b in zip(first, second, strict=True))
    assert not (first[0]["ids"] == first[1]["ids"]).all()


@pytest.mark.parametrize(
    ("text", "signature", "kind", "message"),
    [
        ("nowhere", PICTURES, InputError, "there is no folder 'nowhere'"),
        ("pictures/../empty", PICTURES, InputError, "folder 'pictures/../empty' holds no pictures"),
        (
            "pictures",
            WORDS,
            UsageError,
            "'pictures' is a folder of pictures, and the model takes ids int64[batch, 6]",
        ),
        (
            "pictures",
            Signature((tensor("x", "float32[batch, 3, h, w]"),), (), DIMS),
            UsageError,
            "pictures of 'pictures' have no size: the model takes float32[batch, 3, h, w]",
        ),
        ("calibrate.py:wrong", WORDS, InputError, "input 'ids' has size 7 where the model takes 6"),
        ("calibrate.py:lists", WORDS, InputError, "'calibrate.py:lists' yields a list"),
        (
            "calibrate.py:wrong",
            WORDS,
            InputError,
            "input 'ids' has size 7 where the model takes 6: int64[batch, 6] 0..99\n  where: sample 1 of 'c",
        ),
        (
            "calibrate.py:number",
            WORDS,
            SourceError,
            "'calibrate.py:number' returns int 3, no samples\n  where: calibrate.py:11\n",
        ),
        (
            "calibrate.py:raising",
            WORDS,
            SourceError,
            "'calibrate.py:raising' fails: KeyError: 'label'\n  where: calibrate.py:15: raise Key",
        ),
        (
            "calibrate.py:rows",
            WORDS,
            SourceError,
            "'calibrate.py:rows' fails: TypeError: 'list' object is not callable",
        ),
        ("calibrate.py:none", WORDS, InputError, "'calibrate.py:none' yields no samples"),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, text: str, signature: Signature, kind: type[Exception], message: str
) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(kind) as caught:
        samples_from(text, signature, folder)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("n", "sizes"), [(2, (1, 1)), (10, (5, 5)), (100, (36, 64)), (200, (64, 136)), (1000, (64, 256))]
)
def test_those_that_judge_are_others_than_those_that_calibrate(n: int, sizes: tuple[int, int]) -> None:
    whole = Arrays("numbers", tuple({"x": np.array(i)} for i in range(n)))
    first, second = split(whole)
    seen = [{int(feeds["x"]) for feeds in share} for share in (first, second)]
    assert (len(seen[0]), len(seen[1])) == (len(first), len(second)) == sizes
    assert not seen[0] & seen[1]
    assert max(seen[0]) - min(seen[0]) >= n // 2 - 1  # spread over all
    assert first.name == f"numbers ({sizes[0]} of {n})"
    assert second.name == f"numbers ({sizes[1]} others of {n})"


def test_a_single_sample_serves_both_and_its_name_says_so() -> None:
    first, second = split(Arrays("one", ({"x": np.array(1)},)))
    assert (len(first), len(second)) == (1, 1)
    assert second.name == "one (the same sample that set the ranges)"


def test_an_iterator_that_is_spent_is_refused_at_the_second_pass(folder: Path) -> None:
    found = samples_from("calibrate.py:spent", WORDS, folder)
    with pytest.raises(InputError) as caught:
        list(found)
    assert caught.value.what == "'calibrate.py:spent' gave 5 samples at first, and 0 when called again"


def sized(n_runs: int, n_batch: int = 1) -> Arrays:
    return Arrays("ids", tuple({"ids": np.zeros((n_batch, 6), np.int64)} for _ in range(n_runs)))


@pytest.mark.parametrize(
    ("methods", "n_runs", "n_batch", "text"),
    [
        (
            [Int8Static(), Int8Dynamic()],
            71,
            1,
            "71 samples of ids are too few, 72 are needed\n  where: 8 set the ranges, 64 others judge",
        ),
        (
            [Fp16Storage(), Int8Dynamic()],
            63,
            1,
            "63 samples of ids are too few, 64 are needed\n  do:    give more",
        ),
        (
            [Int8Static()],
            2,
            40,
            "80 samples of ids leave 40 to judge by, 64 are needed\n  where: they come in 2 batches",
        ),
    ],
)
def test_too_few_samples_are_refused_before_any_work(
    methods: list[Method], n_runs: int, n_batch: int, text: str
) -> None:
    with pytest.raises(InputError) as caught:
        divide(sized(n_runs, n_batch), WORDS, methods)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("method", "n_runs", "n_batch", "sizes"),
    [
        (Int8Static(), 72, 1, (8, 64)),
        (Int8Static(), 4, 32, (2, 2)),
        (Int8Dynamic(), 64, 1, (None, 64)),
        (Fp16Storage(), 64, 1, (None, 64)),
        (Int8Dynamic(), 1, 64, (None, 1)),
        (Int8Static(), 1, 64, (1, 1)),
    ],
)
def test_only_methods_with_ranges_take_samples_away(
    method: Method, n_runs: int, n_batch: int, sizes: tuple[int | None, int]
) -> None:
    calibration, judging = divide(sized(n_runs, n_batch), WORDS, [method])
    assert (None if calibration is None else len(calibration), len(judging)) == sizes
    if calibration is None:
        assert judging.name == f"ids ({n_runs} of {n_runs})"


def test_a_name_that_says_nothing_about_pictures_is_refused() -> None:
    check_words(["mean", "size"])
    with pytest.raises(UsageError) as caught:
        check_words(["mean", "maen"])
    assert caught.value.what == "--set maen says nothing about pictures (did you mean 'mean'?)"
