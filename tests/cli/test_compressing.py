from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from anyport.cli.compressing import CompressWords, checked, request_of
from anyport.errors import UsageError
from tests.compress.smallnets import convnet, textnet
from tests.house import tree


def words(model: Path) -> CompressWords:
    return CompressWords(
        model,
        model.with_name("out.onnx"),
        "int8",
        "random",
        (),
        None,
        None,
        None,
        None,
        ("ids=int64[batch,6] 0..99",),
        ("batch=1..4",),
        2,
        None,
        force=False,
        as_json=False,
    )


def test_what_is_absent_keeps_its_default(tmp_path: Path) -> None:
    request = request_of(checked(words(textnet(tmp_path / "in.onnx"))))
    assert (request.method, request.prefer) == ("int8", "speed")
    assert request.calibration is None  # a graph that only multiplies needs no ranges
    ranged = request_of(replace(words(textnet(tmp_path / "in.onnx")), method="int8-static"))
    assert ranged.calibration is not None
    assert ranged.calibration.name == "random numbers, not your data (64 of 128)"
    assert len(request.equality.plan.cases) == 3  # two are asked for; the random ones are always kept
    assert request.equality.reference is None


def test_settings_of_pictures_are_read_as_in_toml(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for number in range(72):
        Image.new("RGB", (20, 20), (3 * number, 0, 0)).save(tmp_path / "pictures" / f"{number}.png")
    given = replace(
        words(convnet(tmp_path / "in.onnx")),
        calibrate=str(tmp_path / "pictures"),
        settings=("mean=[0.5, 0.5, 0.5]", "resample=box"),
        inputs=(),
    )
    request = request_of(given)
    assert request.calibration is not None
    assert min(float(feeds["x"].min()) for feeds in request.calibration) == -0.5


def test_a_project_says_what_to_measure_on(tmp_path: Path) -> None:
    shutil.copytree(tree.ROOT / "examples" / "digits", tmp_path / "digits")
    given = replace(
        words(textnet(tmp_path / "in.onnx")), calibrate=None, against=str(tmp_path / "digits"), inputs=()
    )
    from anyport.cli import compressing

    found = compressing._given(given)
    assert (found.samples, found.evaluate) == ("calibrate.py:samples", "evaluate.py:accuracy")
    assert found.samples_folder.resolve() == (tmp_path / "digits").resolve()
    assert (found.max_drop, found.task) == (0.005, "classify")
    assert found.settings["size"] == [8, 8]
    own = compressing._given(replace(given, calibrate="random", max_drop=0.1, settings=("mode=RGB",)))
    assert (own.samples, own.samples_folder, own.max_drop) == ("random", Path(), 0.1)
    assert own.settings["mode"] == "RGB"


def test_without_samples_nothing_can_be_judged(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no samples to calibrate with and to judge by"):
        request_of(replace(words(textnet(tmp_path / "in.onnx")), calibrate=None))
