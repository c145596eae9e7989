"""`anyport run`."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from anyport.cli import run
from anyport.errors import SessionError
from anyport.task import opening
from anyport.task.caption import Captioner
from tests.runtime import networks
from tests.runtime.externalgraphs import X, external_bundle
from tests.task import blip

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    found = shell("run", bundle, *pictures, "--threads", "1", "--max-memory", "100MB", "--variant", "fp32")
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
        (("--max-memory", "0", "a.png"), 2, "UsageError: the memory limit is 0 bytes, it must be 1 or more"),
        (("--max-memory", "-1GB", "a.png"), 2, "UsageError: Invalid value for '--max-memory': '-1GB' is no"),
        (
            ("--max-memory", "1KB", "a.png"),
            2,
            "UsageError: the memory limit is 1.0 kB, the part 'network' needs 16.8 MB to begin with",
        ),
        (
            ("--max-memory", "much", "a.png"),
            2,
            "UsageError: Invalid value for '--max-memory': 'much' is no",
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


def test_a_memory_limit_says_first_how_parts_are_opened_and_last_the_peak(
    shell: Shell, bundle: Path, tmp_path: Path
) -> None:
    bounded = (bundle, picture(tmp_path, 2), "--max-memory", "20MB")
    found = shell("run", *bounded)
    assert (found.code, found.out) == (0, "  sw   100.0 %\n")
    first, last = found.err.splitlines()
    assert re.fullmatch(r"memory   network: stays open, weights copied \(\d+ bytes copied\)", first)
    assert re.fullmatch(
        r"memory   peak (\d+(\.\d)? (bytes|kB|MB) more than before|is not told by this system): "
        r"weights and computing \(20\.0 MB at most\), Python, arrays",
        last,
    )
    again = shell("run", *bounded, "--json")
    record = again.record
    memory = record.pop("memory")
    assert (memory["limit_bytes"], memory["parts"]) == (20_000_000, {"network": "together"})
    assert memory["peak_bytes"] is None or memory["peak_bytes"] >= 0
    assert record == shell("run", *bounded[:2], "--json").record


def test_too_little_memory_is_named_and_nothing_is_written(shell: Shell, tmp_path: Path) -> None:
    networks.wide(tmp_path / "w.onnx")
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 512, 512), np.float32))
    target = tmp_path / "y.npz"
    words = ("run", tmp_path / "w.onnx", f"x={tmp_path / 'x.npy'}", "-o", target, "--max-memory", "40MB")
    found = shell(*words)
    assert (found.code, found.out) == (1, "")
    said = "the run needs more than the memory limit of 40.0 MB: 67.1 MB more were asked for"
    assert found.err.splitlines()[-3:] == [
        f"MemoryLimitError: the part 'network': {said}",
        f"  where: {tmp_path / 'w.onnx'}, inputs x (1, 1, 512, 512)",
        "  do:    raise the limit, or give fewer or smaller inputs at a time",
    ]
    assert shell(*words, "--json").record["error"]["kind"] == "MemoryLimitError"
    assert not target.exists()


def test_arrays_go_through_a_plain_file(shell: Shell, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    target = tmp_path / "y.npz"
    found = shell("run", networks.affine(tmp_path / "a.onnx"), f"x={tmp_path / 'x.npy'}", "-o", target)
    assert (found.code, found.err) == (0, "")
    assert found.out == f"  y   float32[2, 3]   min 3, mean 3, max 3\n  written to {target}\n"
    again = shell("run", tmp_path / "a.onnx", target, "--json")
    assert again.record["error"]["what"] == "the model has no input 'y' (known: 'x')"


# ── pictures and words ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def as_blip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open `TASK.port` as a tiny BLIP of that task."""
    monkeypatch.setattr(opening, "open_graphs", lambda name: blip.graphs(name.removesuffix(".port")))


@pytest.mark.usefixtures("as_blip")
def test_captions(shell: Shell, tmp_path: Path) -> None:
    pictures = [blip.drawn(tmp_path, f"{colour}.png", colour) for colour in ("red", "blue")]
    words = ("--prompt", "a photo of", "--beams", "3", "--max-new-tokens", "5", "--json")
    found = shell("run", "caption.port", *pictures, *words)
    assert (found.code, found.err) == (0, "")
    assert [answer["file"] for answer in found.record["answers"]] == [str(path) for path in pictures]
    for answer in found.record["answers"]:
        assert answer["text"].startswith("a photo of")
        assert answer["token_ids"][0] == blip.BOS
        assert answer["score"] < 0
    drawn = [
        shell("run", "caption.port", pictures[0], "--sample", "--seed", seed, "--top-k", "0").out
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.usefixtures("as_blip")
def test_answers_and_rankings(shell: Shell, tmp_path: Path) -> None:
    picture, texts = blip.drawn(tmp_path, "a.png", "red"), tmp_path / "texts.txt"
    texts.write_text("a cat\na red car\ntwo dogs\n")
    asked = shell("run", "answer.port", picture, "--question", "what colour is it?")
    assert (asked.code, len(asked.out.splitlines())) == (0, 1)
    ranked = shell("run", "match.port", picture, picture, "--texts", texts, "--top", "2", "--json")
    assert [len(answer["matches"]) for answer in ranked.record["answers"]] == [2, 2]
    vectors = shell("run", "embed.port", "--mode", "text", "--texts", texts, "-o", tmp_path / "out.npz")
    assert vectors.out.splitlines()[-1] == f"  written to {tmp_path / 'out.npz'}"


@pytest.mark.usefixtures("as_blip")
def test_a_stream_shows_pieces(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = blip.drawn(tmp_path, "a.png", "red")
    whole = shell("run", "caption.port", path, "--prompt", "a photo of")
    pieces: list[str] = []
    first = run.click.echo

    def noted(piece: object = "", **words: Any) -> None:
        pieces.append(str(piece))
        first(piece, **words)

    monkeypatch.setattr(run.click, "echo", noted)
    streamed = shell("run", "caption.port", path, "--prompt", "a photo of", "--stream")
    assert (streamed.code, streamed.out, streamed.err) == (0, whole.out, "")
    assert len(pieces) > 3
    assert pieces[0].startswith("  a photo of ")
    assert pieces[-1] == ""
    both = shell("run", "caption.port", path, "--stream", "--json")
    assert (both.code, both.record["error"]["do"]) == (2, "leave one of the two out")


@pytest.mark.usefixtures("as_blip")
def test_a_stream_that_breaks_ends_its_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterator[str]:
        yield "a cat"
        raise SessionError("the decoder's scores are not finite")

    monkeypatch.setattr(Captioner, "pieces", broken)
    found = shell("run", "caption.port", "a.png", "--stream")
    assert (found.code, found.out) == (1, "  a cat\n")
    assert found.err == "SessionError: the decoder's scores are not finite\n"


@pytest.mark.usefixtures("as_blip")
def test_what_was_cut_is_noted_beside_the_answer(shell: Shell, tmp_path: Path) -> None:
    words = ("run", "caption.port", blip.drawn(tmp_path, "a.png", "red"), "--prompt", "cat " * 2500)
    found = shell(*words, "--truncate")
    assert (found.code, found.err) == (
        0,
        "note: the prompt is too long: its last 2481 tokens were left out\n",
    )
    assert len(found.out.splitlines()) == 1
    as_json = shell(*words, "--truncate", "--json")
    assert (as_json.err, as_json.record["answers"][0]["n_truncated"]) == ("", 2481)


@pytest.mark.usefixtures("as_blip")
def test_a_terminal_sees_a_count(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = blip.drawn(tmp_path, "a.png", "red")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    found = shell("run", "caption.port", *[path] * 9)
    assert "  pictures read: 9 of 9" in found.err
    assert "  texts written: 8 of 9" in found.err
    assert found.err.endswith("\r\x1b[K")
    assert len(found.out.splitlines()) == 9
    assert shell("run", "caption.port", *[path] * 9, "--json").err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("caption.port", "notes.jpg"), "InputError: notes.jpg is no picture that anyport reads"),
        (("caption.port", "cut.jpg"), "InputError: cut.jpg is damaged or cut off"),
        (("caption.port", "moving.gif"), "InputError: moving.gif is a GIF with several frames or pages"),
        (
            ("caption.port", "a.jpg", "--prompt", "cat " * 2500),
            "InputError: the prompt for a.jpg has 2500 tokens",
        ),
        (("caption.port", "a.jpg", "--seed", "3"), "UsageError: --seed has no effect without --sample"),
        (
            ("caption.port", "a.jpg", "--beams", "99"),
            "UsageError: 99 beams are asked for, the decoder takes 64",
        ),
        (("answer.port", "a.jpg"), "UsageError: no question is given"),
        (("answer.port", "a.jpg", "--question", ""), "InputError: the question for a.jpg is empty"),
        (("match.port", "a.jpg", "--texts", "none.txt"), "InputError: none.txt cannot be read: No such file"),
    ],
)
@pytest.mark.usefixtures("as_blip")
def test_wrong_pictures_and_words_are_named(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    image = Image.open(blip.drawn(tmp_path, "a.jpg", "red"))
    (tmp_path / "notes.jpg").write_text("a text")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-300])
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", image.size)])
    found = shell("run", *words)
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(message)


def test_the_weights_of_a_bundle_that_refers_to_them_are_named_once(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    bundle, feeds = external_bundle(tmp_path), tmp_path / "x.npy"
    np.save(feeds, X)
    words = ("run", bundle, f"x={feeds}", "--json")
    assert "the weights are not in the bundle" in shell(*words).out
    assert shell(*words, "--weights", tmp_path / "checkpoint").code == 0
    assert shell(*words).code == 0  # this machine remembers
