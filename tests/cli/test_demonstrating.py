"""What `anyport demo` shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from anyport.bundle import pack
from anyport.cli.demonstrating import DemoEdit, edit_picture, read_digit, side_by_side
from anyport.errors import InputError, MismatchError, UsageError
from tests.cli import demos
from tests.runtime import networks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell


def test_a_digit_is_verified_read_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demos.ship_digits(tmp_path)
    assert read_digit(tmp_path, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  verify ")
    assert lines[0].endswith("PASS")
    assert "  sw   100.0 %" in lines
    assert any("@@" in line for line in lines)


def test_a_bundle_that_proves_nothing_is_no_demo(tmp_path: Path) -> None:
    words = replace(networks.Words(), cases=[], answers={})
    bundle = networks.bundle(tmp_path / "c.port", networks.corners(tmp_path / "c.onnx"), words)
    pack(bundle, tmp_path / "digits.port")
    Image.new("L", (2, 2)).save(tmp_path / "seven.png")
    assert read_digit(tmp_path, as_json=True) == 1
    with pytest.raises(MismatchError, match="the verdict is inconclusive"):
        read_digit(tmp_path, as_json=False)


def test_the_shipped_editor_does_as_it_is_told(shell: Shell, tmp_path: Path) -> None:
    card = np.asarray(Image.open(demos.SHIPPED / "card.png").convert("RGB"))
    assert ((card > 230).all(axis=-1)).sum() > 100  # the white T-shirt
    target = tmp_path / "both.png"
    found = shell("demo", "--instruction", "把白色T恤换成黑色", "-o", target)
    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines()[:2] == [
        "  edit      card.png   把白色T恤换成黑色",
        f"  written   {target}   before and after",
    ]
    sheet = np.asarray(Image.open(target))
    before, after = (
        sheet[:, :256].reshape(64, 4, 64, 4, 3)[:, 0, :, 0],
        sheet[:, -256:].reshape(64, 4, 64, 4, 3)[:, 0, :, 0],
    )
    assert np.array_equal(before, card)
    shirt = (card > 230).all(axis=-1)
    assert np.median(after[shirt]) < 80
    far = np.linalg.norm(card.astype(int) - after, axis=-1) < 40
    assert far[~shirt].mean() > 0.9


def test_other_words_give_another_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = []
    for number, instruction in enumerate((None, "make the background pink")):
        target = tmp_path / f"{number}.png"
        assert edit_picture(demos.SHIPPED, DemoEdit(instruction, str(target), force=False), as_json=True) == 0
        pictures.append(np.asarray(Image.open(target)))
    assert not np.array_equal(*pictures)
    assert '"instruction": "make the background pink"' in capsys.readouterr().out


def test_nothing_is_written_unasked_or_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert edit_picture(demos.SHIPPED, DemoEdit(None, None, force=False), as_json=False) == 0
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists"):
        edit_picture(demos.SHIPPED, DemoEdit(None, "a.png", force=False), as_json=False)
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    assert edit_picture(demos.SHIPPED, DemoEdit(None, "a.png", force=True), as_json=False) == 0
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.height == 256


@pytest.mark.parametrize("instruction", ["", "  "])
def test_an_instruction_without_words_is_refused(instruction: str) -> None:
    with pytest.raises(InputError, match="^the instruction has no words"):
        edit_picture(demos.SHIPPED, DemoEdit(instruction, None, force=False), as_json=False)


def test_what_is_cut_off_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    long = "make the shoe red " * 200
    assert edit_picture(demos.SHIPPED, DemoEdit(long, None, force=False), as_json=False) == 0
    assert " tokens, 128 are used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "text"),
    [("", "must end in"), ("a.tiff", "must end in .png, .jpg or .webp"), ("no/a.png", "no")],
)
def test_an_output_that_cannot_be_is_refused_before_anything_runs(
    output: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, InputError), match=text):
        edit_picture(demos.SHIPPED, DemoEdit(None, output, force=False), as_json=False)


def test_small_pictures_are_enlarged_and_large_ones_are_not() -> None:
    small, large = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (300, 400), "red")
    assert side_by_side(small, small).size == (2 * 256 + 16, 192)
    assert side_by_side(large, large).size == (2 * 300 + 16, 400)
