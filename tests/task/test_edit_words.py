"""The task ``edit``: wrong input, pictures of every kind, and the words of a command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from anyport.errors import InputError, SessionError, UsageError
from anyport.task import TaskOptions, task_module
from anyport.task.edit_plan import Editing
from anyport.task.opening import task_of
from tests.task import qwen_edit
from tests.task.test_colour_profile import PROFILE
from tests.task.test_edit import QUICK, flower, opened, sessions

if TYPE_CHECKING:
    from pathlib import Path

    from anyport.task.edit import ImageEditor

BAD_LATENTS = np.full((1, 12, 64), np.nan, np.float32)
WRONG: dict[str, tuple[Any, Any, Editing, str]] = {
    "no picture": ([], "x", QUICK, "there are 0 pictures, the model edits 1 to 3 pictures"),
    "four": (["f"] * 4, "x", QUICK, "there are 4 pictures, the model edits 1 to 3 pictures"),
    "no list": ("f.png", "x", QUICK, "edit takes a list of pictures, not one str"),
    "no file": (["gone.png"], "x", QUICK, "there is no file gone.png"),
    "long": (
        [np.zeros((1, 20_000, 3), np.uint8)],
        "x",
        QUICK,
        "picture 1 is 20000 x 1 pixels: it is too long and thin for the model",
    ),
    "large": (
        [np.broadcast_to(np.uint8(0), (20_000, 20_000))],
        "x",
        QUICK,
        "picture 1 has 400.0 million pixels, at most 64.0 million are read",
    ),
    "float": ([np.zeros((8, 8), np.float32)], "x", QUICK, "picture 1 is float32[8, 8]"),
    "words": (["f"], 7, QUICK, "the instruction is a int, not text"),
    "mark": (
        ["f"],
        "a<|im_end|>b",
        QUICK,
        "the instruction holds '<|im_end|>', a mark of the model's own",
    ),
    "half": (["f"], "a\ud800", QUICK, "the instruction holds half a character (a lone surrogate)"),
    "steps 0": (["f"], "x", Editing(steps=0), "steps is 0, it must be 1 to 1000"),
    "steps 1": (
        ["f"],
        "x",
        Editing(steps=1),
        "1 step cannot be stretched to end at 0.02: it would divide 0 by 0",
    ),
    "NaN guidance": (["f"], "x", Editing(guidance=np.nan), "guidance is nan, it must be from 0 to 100"),
    "seed": (["f"], "x", Editing(seed=-1), "seed is -1, it must be a whole number, 0 or more"),
    "both noises": (
        ["f"],
        "x",
        Editing(latents=BAD_LATENTS, seed=0, size=(64, 48)),
        "there are latents and a seed",
    ),
    "max_length": (["f"], "x", Editing(max_length=-1), "max_length is -1, it must be 0 or more"),
    "NaN latents": (
        ["f"],
        "x",
        Editing(latents=BAD_LATENTS, size=(64, 48)),
        "latents hold 768 numbers that are not finite in float32",
    ),
    "latents": (
        ["f"],
        "x",
        Editing(latents=BAD_LATENTS[:, 1:], size=(64, 48)),
        "latents are float32[1, 11, 64], an answer of 64 x 48 begins with float32[1, 12, 64]",
    ),
    "small": (
        ["f"],
        "x",
        Editing(size=(64, 15)),
        "the size 64 x 15 is too small: the model makes 16 pixels or more",
    ),
    "thin": (
        ["f"],
        "x",
        Editing(size=(16384, 32)),
        "the answer's size: the part 'vae_decoder' would see latent_width = 2048, it takes 2..1024:2",
    ),
    "box": (
        ["f"],
        "x",
        Editing(box=(0, 0, 641, 10)),
        "the box 0,0,641,10 does not lie in the picture of 640 x 427 pixels",
    ),
    "both": (["f"], "x", Editing(box=(0, 0, 9, 9), mask="m.png"), "there are a mask and a box"),
    "mask": (
        ["f"],
        "x",
        Editing(mask=np.zeros((8, 9), np.uint8)),
        "the mask is 9 x 8 pixels, the picture is 640 x 427",
    ),
    "black": (
        ["f"],
        "x",
        Editing(mask=np.zeros((427, 640), np.uint8)),
        "the mask is black everywhere: nothing may change",
    ),
    "box and size": (
        ["f"],
        "x",
        Editing(box=(0, 0, 9, 9), size=(64, 64)),
        "with a mask or a box the answer has the size of the first picture",
    ),
}


@pytest.fixture(scope="module")
def task() -> ImageEditor:
    return opened()


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_before_anything_is_computed(name: str, task: ImageEditor) -> None:
    pictures, words, asked, message = WRONG[name]
    given = pictures
    if isinstance(pictures, list):
        given = [flower() if isinstance(one, str) and one == "f" else one for one in pictures]
    n_runs = sum(one.n_runs for one in sessions(task).values())
    with pytest.raises(InputError) as caught:
        task.edit(given, words, asked)
    assert caught.value.what == message
    assert sum(one.n_runs for one in sessions(task).values()) == n_runs


@pytest.mark.parametrize("kind", ["1x1", "long", "alpha", "CMYK", "16-bit", "EXIF"])
def test_pictures_of_every_kind_are_edited(task: ImageEditor, tmp_path: Path, kind: str) -> None:
    image = flower().resize((60, 40))
    made = {
        "1x1": image.resize((1, 1)),
        "long": image.resize((20_000, 120)),
        "alpha": image.convert("RGBA"),
        "CMYK": image.convert("CMYK"),
        "16-bit": Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
        "EXIF": image,
    }[kind]
    exif = Image.Exif()
    if kind == "EXIF":
        exif[0x0112] = 6
    made.save(path := tmp_path / "made.tiff", exif=exif)
    asked = Editing(steps=2, guidance=1.0) if kind == "EXIF" else QUICK
    found = task.edit([path], "x", asked)
    assert found.image.size == ((224, 320) if kind == "EXIF" else (64, 48))


def test_moving_pictures_are_refused(task: ImageEditor, tmp_path: Path) -> None:
    frames = [flower().resize((60, 40)), flower().resize((60, 40)).rotate(180)]
    frames[0].save(path := tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="moving.gif is a GIF with several frames or pages"):
        task.edit([path], "x", QUICK)


@pytest.mark.parametrize(
    ("part", "output", "message"),
    [
        (
            "transformer",
            "velocity",
            "the 'velocity' that the part 'transformer' gives for sigma 1 is not finite",
        ),
        (
            "vae_encoder",
            "latent",
            "the 'latent' that the part 'vae_encoder' gives for picture 1 is not finite",
        ),
    ],
)
def test_a_part_that_fails_is_named(
    part: str, output: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as task:
        session = sessions(task)[part]
        right = session.run
        monkeypatch.setattr(session, "run", lambda feeds: {output: right(feeds)[output] * np.nan})
        with pytest.raises(SessionError) as caught:
            task.edit([flower()], "x", QUICK)
    assert caught.value.what == message


# ── the command line, settings, closing ────────────────────────────────────────────────────────────────

WORDS = {"instruction": "x", "steps": 2, "guidance": 1.0, "size": "64x48"}


def test_words_of_a_command_line(task: ImageEditor, tmp_path: Path) -> None:
    flower().save(source := tmp_path / "in.png", icc_profile=PROFILE)
    flower().save(other := tmp_path / "other.png")
    expected = task.edit([source, other], "x", QUICK)
    for suffix in (".png", ".webp", ".jpg", ".JPEG"):
        target = tmp_path / f"out{suffix}"
        found = task.answer([str(source), str(other)], WORDS | {"output": str(target)})
        note = f"{other} has another colour profile than {source}: the answer has the latter's"
        assert found.lines == (f"  {target}   64 x 48", f"  note: {note}")
        assert found.record["notes"] == [note]
        with Image.open(target) as image:
            assert (image.size, image.mode, image.info["icc_profile"]) == ((64, 48), "RGB", PROFILE)
            if suffix == ".png":
                assert np.array_equal(np.asarray(image), np.asarray(expected.image))
    with pytest.raises(UsageError, match="'out.png' exists already"):
        task.answer([str(source)], WORDS | {"output": str(tmp_path / "out.png")})
    task.answer([str(source)], WORDS | {"output": str(tmp_path / "out.png"), "force": True})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "no instruction is given"),
        ({"instruction": "x"}, "no output file is given"),
        (WORDS | {"output": "out.gif"}, "the output file 'out.gif' must end in .png, .jpg or .webp"),
        (
            WORDS | {"output": "out.jpg", "box": "0,0,9,9"},
            "the output file 'out.jpg' would change every pixel, also outside the region",
        ),
        (WORDS | {"output": "out.png", "box": "1,2,3"}, "the box '1,2,3' is not understood"),
        (WORDS | {"output": "out.png", "size": "big"}, "the size 'big' is not understood"),
        (WORDS | {"output": "out.png", "latents": "gone.npy"}, "there is no file gone.npy"),
        (
            WORDS | {"outptu": "x"},
            "options of the task 'edit': unknown key 'outptu' (did you mean 'output'?)",
        ),
        (
            WORDS | {"steps": 0},
            "options of the task 'edit': 'steps': expected 'int' >= 1",
        ),
    ],
)
def test_wrong_words_of_a_command_line(task: ImageEditor, words: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, InputError)) as caught:
        task.answer(["in.png"], words)
    assert caught.value.what == message


def test_a_command_line_without_pictures(task: ImageEditor, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no picture is given"):
        task.answer([], WORDS)
    (bad := tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="bad.npy cannot be read as an array"):
        task.answer(["in.png"], WORDS | {"output": "out.png", "latents": str(bad)})


def test_closing_gives_everything_back() -> None:
    with opened() as task:
        graphs = task._parts.graphs
    task.close()
    assert not graphs.is_open  # type: ignore[attr-defined]
    assert not any(session.is_open for session in sessions(task).values())
    assert task_module("edit").Options().__struct_fields__


def test_long_work_tells_what_it_has_done(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    flower().save(tmp_path / "in.png")
    with task_of(qwen_edit.graphs(), TaskOptions(progress=lambda *words: told.append(words))) as task:
        task.answer([str(tmp_path / "in.png")], WORDS | {"output": str(tmp_path / "out.png")})
    assert told == [("steps", 1, 2), ("steps", 2, 2)]


def test_a_size_that_the_format_cannot_hold_is_refused_first(task: ImageEditor, tmp_path: Path) -> None:
    flower().save(tmp_path / "in.png")
    n_runs = sum(one.n_runs for one in sessions(task).values())
    words = WORDS | {"output": str(tmp_path / "out.webp"), "size": "16400x3900"}
    with pytest.raises(UsageError, match="a WEBP has at most 16383 pixels in a row, this is 16400 x 3900"):
        task.answer([str(tmp_path / "in.png")], words)
    assert sum(one.n_runs for one in sessions(task).values()) == n_runs
    assert [one.name for one in tmp_path.iterdir()] == ["in.png"]
