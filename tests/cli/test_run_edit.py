"""`anyport run` with a bundle of the task ``edit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from anyport.task import opening
from tests.task import qwen_edit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell

WORDS = ("--steps", "2", "--guidance", "1", "--size", "64x48")


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Write two photographs, and open any bundle as a tiny editor."""
    monkeypatch.setattr(opening, "open_graphs", lambda _: qwen_edit.graphs())
    monkeypatch.chdir(tmp_path)
    for name in ("f", "t"):
        qwen_edit.photographs()[name].save(tmp_path / f"{name}.png")
    return [tmp_path / f"{name}.png" for name in ("f", "t")]


def test_a_picture_is_edited(shell: Shell, pictures: list[Path], tmp_path: Path) -> None:
    def edited(name: str, *words: str) -> np.ndarray:
        asked = ("--instruction", "make it blue", "-o", name, *WORDS, *words)
        found = shell("run", "edit.port", *pictures, *asked)
        assert (found.code, found.out) == (0, f"  {name}   64 x 48\n")
        assert found.err == ""  # steps are counted on terminals alone
        return np.asarray(Image.open(tmp_path / name))

    first = edited("a.png", "--seed", "7")
    assert np.array_equal(first, edited("b.png", "--seed", "7"))
    assert not np.array_equal(first, edited("c.png"))
    noise = np.random.default_rng(7).standard_normal((1, 12, 64), np.float32)
    np.save(tmp_path / "noise.npy", noise)
    assert np.array_equal(first, edited("d.png", "--latents", "noise.npy"))


def test_json_says_where_the_picture_is(shell: Shell, pictures: list[Path]) -> None:
    asked = ("--instruction", "", "-o", "out.webp", "--json", *WORDS)
    found = shell("run", "edit.port", pictures[0], *asked)
    note = "the instruction has no words: the model alone decides what to change"
    assert found.record == {
        "task": "edit",
        "file": "out.webp",
        "width": 64,
        "height": 48,
        "n_computed": 2,
        "notes": [note],
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "UsageError: no picture is given"),
        (("f.png",), "UsageError: no instruction is given"),
        (("f.png", "--instruction", "x"), "UsageError: no output file is given"),
        (("f.png", "--instruction", "x", "-o", "f.png"), "UsageError: 'f.png' exists already"),
        (("gone.png", "--instruction", "x", "-o", "o.png"), "InputError: there is no file gone.png"),
        (
            ("f.png", "t.png", "f.png", "t.png", "--instruction", "x", "-o", "o.png"),
            "InputError: there are 4 pictures, the model edits 1 to 3 pictures",
        ),
        (
            ("f.png", "--instruction", "x", "-o", "o.png", "--steps", "1"),
            "InputError: 1 step cannot be stretched to end at 0.02: it would divide 0 by 0",
        ),
        (
            ("f.png", "--instruction", "x", "-o", "o.jpg", "--box", "0,0,9,9"),
            "UsageError: the output file 'o.jpg' would change every pixel, also outside the region",
        ),
    ],
)
@pytest.mark.usefixtures("pictures")
def test_wrong_words_are_named_and_nothing_is_written(
    shell: Shell, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    found = shell("run", "edit.port", *words)
    assert found.code == 2
    assert found.err.startswith(message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.png", "t.png"]


@pytest.mark.usefixtures("pictures")
def test_the_help_lists_the_options(shell: Shell) -> None:
    found = shell("run", "edit.port", "--help")
    for option in ("--instruction", "-o, --output", "--negative", "--guidance", "--steps", "--seed"):
        assert option in found.out
    for option in ("--latents", "--size", "--mask", "--box", "--max-length", "--force"):
        assert option in found.out
