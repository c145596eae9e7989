"""`anyport run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return networks.corners_bundle(tmp_path)


def picture(folder: Path, corner: int) -> Path:
    pixels = np.zeros(4, np.uint8)
    pixels[corner] = 255
    path = folder / f"{corner}.png"
    Image.fromarray(pixels.reshape(2, 2)).save(path)
    return path


def test_a_picture_becomes_a_line(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    found = shell("run", bundle, picture(tmp_path, 2))
    assert (found.code, found.out, found.err) == (0, "  sw   100.0 %\n", "")


def test_pictures_come_out_in_their_order(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    pictures = [picture(tmp_path, corner) for corner in (3, 0, 1)]
    found = shell("run", bundle, *pictures, "--threads", "1", "--memory-limit", "100MB", "--variant", "fp32")
    assert found.out.splitlines() == [
        f"  {path}   {label}   100.0 %" for path, label in zip(pictures, ["se", "nw", "ne"], strict=True)
    ]


def test_json_holds_everything(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    path = picture(tmp_path, 1)
    found = shell("run", "--json", bundle, path, "--top", "2")
    assert (found.code, found.err) == (0, "")
    answer = found.record["answers"][0]
    assert answer["input"] == str(path)
    assert [label["label"] for label in answer["top"]] == ["ne", "nw"]
    assert answer["top"][0]["probability"] == pytest.approx(1, abs=1e-3)


def test_options_of_the_task_stand_behind_the_bundle(shell: Shell, bundle: Path) -> None:
    found = shell("run", "--top", "2", bundle, "a.png")
    assert (found.code, found.err) == (
        2,
        (
            "UsageError: '--top' is no option of 'anyport run' itself\n"
            "  do:    put options of the task behind BUNDLE: anyport run BUNDLE INPUT… --top\n"
        ),
    )


def test_one_bad_picture_stops_all_and_nothing_is_printed(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    found = shell("run", bundle, picture(tmp_path, 0), bad)
    assert (found.code, found.out) == (2, "")
    assert found.err.splitlines()[0] == f"InputError: {bad} is no picture that anyport reads"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "UsageError: no picture is given"),
        (("--variant", "int8", "a.png"), 2, "UsageError: the bundle has no variant 'int8' (known: 'fp32')"),
        (("--provider", "cdua", "a.png"), 2, "UsageError: onnxruntime has no provider 'cdua'"),
        (
            ("--provider", "coreml", "a.png"),
            1,
            "SessionError: the provider 'coreml' is not in this onnxruntime",
        ),
        (("--memory-limit", "10B", "a.png"), 1, "SessionError: the weights take "),
        (
            ("--memory-limit", "much", "a.png"),
            2,
            "UsageError: Invalid value for '--memory-limit': 'much' is no",
        ),
        (("--threads", "0", "a.png"), 2, "UsageError: Invalid value for '--threads'"),
        (("nope.png",), 2, "InputError: there is no file nope.png"),
    ],
)
def test_wrong_use_is_named(
    shell: Shell, bundle: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    found = shell("run", bundle, *words)
    assert (found.code, found.out) == (code, "")
    assert found.err.startswith(message)


def test_arrays_go_through_a_plain_file(shell: Shell, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    target = tmp_path / "y.npz"
    found = shell("run", networks.affine(tmp_path / "a.onnx"), f"x={tmp_path / 'x.npy'}", "-o", target)
    assert (found.code, found.err) == (0, "")
    assert found.out == f"  y   float32[2, 3]   min 3, mean 3, max 3\n  written to {target}\n"
    again = shell("run", tmp_path / "a.onnx", target, "--json")
    assert again.record["error"]["what"] == "the model has no input 'y' (known: 'x')"
