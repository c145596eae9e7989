"""Pictures in, labels and probabilities out: against a graph whose scores are known by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import anyport
from anyport.bundle import PartEntry
from anyport.errors import InputError, SessionError, UsageError
from anyport.runtime.signature import signature_of_part
from anyport.task import check_settings
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.task.classify import Classifier
    from anyport.task.pictures import Picture

PART = networks.Words().part


def bright(corner: int) -> np.ndarray:
    picture = np.zeros(4, np.uint8)
    picture[corner] = 255
    return picture.reshape(2, 2)


def opened(folder: Path, batch: int | str = "batch", **settings: object) -> Classifier:
    axis, dims = (batch, {}) if isinstance(batch, int) else ("batch", {"batch": "1..3"})
    part = PartEntry({"pixel_values": f"float32[{axis}, 1, 2, 2]"}, {"logits": f"float32[{axis}, 4]"}, dims)
    words = networks.Words(settings=networks.CORNERS | settings, part=part)
    path = networks.bundle(folder / "c.port", networks.corners(folder / "c.onnx", batch), words)
    task: Classifier = anyport.open_task(path)
    return task


@pytest.fixture
def task(tmp_path: Path) -> Classifier:
    return opened(tmp_path)


def test_the_brightest_corner_wins(task: Classifier) -> None:
    found = task.classify([bright(corner) for corner in (2, 0, 3, 1)])
    assert [one.label for one in found] == ["sw", "nw", "se", "ne"]
    expected = np.exp(10) / (np.exp(10) + 3)
    assert [one.probability for one in found] == pytest.approx([expected] * 4)
    assert found[0].scores.sum() == pytest.approx(1)
    assert found[0].scores.dtype == np.float64


def test_equal_scores_keep_the_order_of_the_model(task: Classifier) -> None:
    found = task.classify([np.zeros((2, 2), np.uint8)], top=3)[0]
    assert [label.label for label in found.top] == ["nw", "ne", "sw"]
    assert [label.probability for label in found.top] == [0.25] * 3


def test_top_is_cut_at_the_number_of_labels(task: Classifier) -> None:
    assert len(task.classify([bright(0)], top=100)[0].top) == 4
    with pytest.raises(UsageError, match="top is 0, it must be 1 or more"):
        task.classify([bright(0)], top=0)


def test_every_kind_of_picture_gives_the_same(task: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "b.png"
    Image.fromarray(bright(1)).save(path)
    sources: list[Picture] = [
        path,
        str(path),
        path.read_bytes(),
        Image.open(path),
        bright(1),
        np.stack([bright(1)] * 3, axis=2),
    ]
    found = task.classify(sources)
    for one in found:
        np.testing.assert_array_equal(one.scores, found[0].scores)


@pytest.mark.parametrize("batch", ["batch", 1, 2, 5])
@pytest.mark.parametrize("n_pictures", [0, 1, 3, 7])
def test_any_number_of_pictures_goes_through_any_batch(
    tmp_path: Path, batch: int | str, n_pictures: int
) -> None:
    pictures = [bright(i % 4) for i in range(n_pictures)]
    with opened(tmp_path, batch) as task:
        found = task.classify(pictures, top=1)
    assert [one.label for one in found] == [["nw", "ne", "sw", "se"][i % 4] for i in range(n_pictures)]


@pytest.mark.parametrize(("activation", "expected"), [("none", 10.0), ("sigmoid", 1 / (1 + np.exp(-10)))])
def test_the_activation_is_a_setting(tmp_path: Path, activation: str, expected: float) -> None:
    found = opened(tmp_path, activation=activation).classify([bright(0)])[0]
    assert found.probability == pytest.approx(expected)
    assert found.scores[1] == pytest.approx({"none": 0, "sigmoid": 0.5}[activation])


def test_large_scores_do_not_overflow(tmp_path: Path) -> None:
    for activation in ("softmax", "sigmoid"):
        (tmp_path / activation).mkdir()
        with opened(tmp_path / activation, scale=1000.0, mean=[100.0], activation=activation) as task:
            scores = task.classify([bright(0)])[0].scores
        assert np.isfinite(scores).all()
        assert scores[0] == 1


def test_logits_are_the_network_s_own(task: Classifier) -> None:
    pixel_values = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    np.testing.assert_array_equal(task.logits(pixel_values), 10 * pixel_values.reshape(2, 4))
    with pytest.raises(InputError, match="input 'pixel_values' is float64"):
        task.logits(np.zeros((1, 1, 2, 2)))


def test_scores_that_are_not_finite_are_refused(task: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "logits", lambda values: np.full((len(values), 4), np.nan, np.float32))
    with pytest.raises(SessionError, match="the model's scores for picture 1 are not finite"):
        task.classify([bright(0)])


# ── refusals ───────────────────────────────────────────────────────────────────────────────────────────


def test_one_bad_picture_stops_before_anything_is_computed(
    task: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    monkeypatch.setattr(task, "logits", lambda _: pytest.fail("it computed"))
    with pytest.raises(InputError) as caught:
        task.classify([bright(0), bad])
    assert caught.value.what == f"{bad} is no picture that anyport reads"


def test_pictures_without_a_file_are_counted(task: Classifier) -> None:
    with pytest.raises(InputError, match="picture 2 is no picture that anyport reads"):
        task.classify([bright(0), b"no picture"])


@pytest.mark.parametrize("one", ["a.png", b"bytes", Image.new("L", (2, 2))])
def test_one_picture_in_the_place_of_a_list_is_refused(task: Classifier, one: str) -> None:
    with pytest.raises(InputError, match="classify takes a list of pictures, not one") as caught:
        task.classify(one)
    assert caught.value.do == "write classify([picture])"


def test_an_array_in_the_place_of_a_list_is_refused(task: Classifier) -> None:
    with pytest.raises(InputError, match="classify takes a list of pictures, not one ndarray"):
        task.classify(bright(0))  # type: ignore[arg-type]


def checked(part: PartEntry = PART, **settings: object) -> str:
    with pytest.raises(UsageError) as caught:
        check_settings("classify", networks.CORNERS | settings, {"network": signature_of_part(part)})
    return caught.value.what


def test_settings_that_fit_are_taken() -> None:
    check_settings("classify", networks.CORNERS, {"network": signature_of_part(PART)})


def test_settings_that_do_not_fit_the_part_are_named() -> None:
    what = "settings of the task 'classify'"
    assert checked(labels=["a", "b"]) == f"{what}: there are 2 labels, the model gives 4 scores"
    assert checked(lables=[]) == f"{what}: unknown key 'lables' (did you mean 'labels'?)"
    assert checked(activation="relu") == f"{what}: 'activation': invalid enum value 'relu'"
    assert checked(mode="RGB").startswith(
        f"{what} make pictures of 3 channels, 2 x 2, the model's input 'pixel_values'"
    )
    assert checked(size=[4, 2]).startswith(f"{what} make pictures of 1 channels, 4 x 2, the model's input")
    assert checked(std=[0.0]) == "settings: std = [0.0] must be above 0 in every channel"


def test_dynamic_height_and_width_must_hold_the_size() -> None:
    dims = {"batch": "1..4", "h": "2..8:2", "w": "2..8:2"}
    part = PartEntry({"x": "float32[batch, 1, h, w]"}, {"y": "float32[batch, 4]"}, dims)
    check_settings("classify", networks.CORNERS, {"network": signature_of_part(part)})
    assert "make pictures of 1 channels, 3 x 2" in checked(part, size=[3, 2])


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (
            {"x": "float32[n, 4]"},
            {"y": "float32[n, 4]"},
            "needs one input float32[batch, channels, height, width]",
        ),
        (
            {"x": "int64[n, 1, 2, 2]"},
            {"y": "float32[n, 4]"},
            "needs one input float32[batch, channels, height",
        ),
        (
            {"x": "float32[n, 1, 2, 2]"},
            {"y": "float32[n, 4, 1]"},
            "needs an output float32[batch, labels], 'y' is",
        ),
        (
            {"x": "float32[n, 1, 2, 2]"},
            {"y": "float32[n, 4]", "z": "float32[n]"},
            "needs an output 'logits' (known: 'y', 'z')",
        ),
    ],
)
def test_parts_of_another_form_are_refused(
    inputs: dict[str, str], outputs: dict[str, str], message: str
) -> None:
    found = checked(PartEntry(inputs, outputs, {"n": "1..4"}))
    assert found.startswith(f"the task 'classify' {message}")


def test_several_parts_are_refused() -> None:
    parts = {name: signature_of_part(PART) for name in ("a", "b")}
    with pytest.raises(UsageError, match="the task 'classify' has one part, the model has 2: a, b"):
        check_settings("classify", networks.CORNERS, parts)


# ── words ──────────────────────────────────────────────────────────────────────────────────────────────


def saved(folder: Path, corner: int, name: str) -> str:
    path = folder / name
    Image.fromarray(bright(corner)).save(path)
    return str(path)


def test_one_picture_is_one_line(task: Classifier, tmp_path: Path) -> None:
    name = saved(tmp_path, 2, "a.png")
    found = task.answer([name], {})
    assert found.lines == ("  sw   100.0 %",)
    assert found.record["answers"][0]["top"][0]["label"] == "sw"


def test_several_pictures_show_their_names(task: Classifier, tmp_path: Path) -> None:
    names = [saved(tmp_path, 2, "a.png"), saved(tmp_path, 1, "long.png")]
    found = task.answer(names, {"top": 2})
    assert found.lines == (
        f"  {names[0]}      sw   100.0 %",
        f"  {' ' * len(names[0])}      nw   0.0 %",
        f"  {names[1]}   ne   100.0 %",
        f"  {' ' * len(names[1])}   nw   0.0 %",
    )
    assert [answer["input"] for answer in found.record["answers"]] == names


def test_scores_are_no_percentages(tmp_path: Path) -> None:
    task = opened(tmp_path, activation="none")
    assert task.answer([saved(tmp_path, 0, "a.png")], {}).lines == ("  nw   10",)


def test_words_that_are_missing_or_wrong_are_refused(task: Classifier) -> None:
    with pytest.raises(UsageError, match="no picture is given"):
        task.answer([], {})
    with pytest.raises(UsageError, match="options of the task 'classify': unknown key 'tpo'"):
        task.answer(["a.png"], {"tpo": 1})
