"""Captions: token for token those of transformers' ``generate()``, and a batch is its singles."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from anyport.errors import InputError, SessionError, UsageError
from anyport.task import TaskOptions, check_settings, task_module
from anyport.task.caption import Captioner, open_task
from anyport.task.generation import Beams, Generation, Sample
from tests.task import blip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

N_PICTURES = 10
PROMPTS = ["", "a photo of", "a cat on the sofa and", "what", "two dogs"]
HOWS: list[tuple[Generation, dict[str, Any]]] = [
    (Generation(), {}),
    (Generation(max_new_tokens=7), {"max_new_tokens": 7}),
    (
        Generation(repetition_penalty=1.5, min_new_tokens=12),
        {"repetition_penalty": 1.5, "min_new_tokens": 12},
    ),
    (Generation(Beams(3)), {"num_beams": 3}),
    (
        Generation(Beams(4, 2.0), max_new_tokens=11, min_new_tokens=4, repetition_penalty=1.3),
        {
            "num_beams": 4,
            "length_penalty": 2.0,
            "max_new_tokens": 11,
            "min_new_tokens": 4,
            "repetition_penalty": 1.3,
        },
    ),
    (Generation(Beams(2, -1.0)), {"num_beams": 2, "length_penalty": -1.0}),
]


def opened(**generation: Any) -> Captioner:
    graphs = blip.graphs("caption", **generation)
    return open_task(graphs, graphs.settings, TaskOptions())


@pytest.fixture
def task() -> Captioner:
    return opened()


def sessions(task: Captioner) -> dict[str, blip.TorchPart]:
    found: dict[str, blip.TorchPart] = task._parts.graphs.sessions  # type: ignore[attr-defined]
    return found


def theirs(pictures: Sequence[np.ndarray], prompts: Sequence[str], **words: Any) -> list[Any]:
    """Write about each picture alone, in the way of transformers' processor and ``generate()``."""
    found = []
    for values, prompt in zip(blip.pixel_values(pictures), prompts, strict=True):
        ids = [blip.START, *blip.word_ids(prompt), blip.SEP]
        given = {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        }
        found.append(
            blip.captioner().generate(
                pixel_values=values[None],
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
                **({"max_new_tokens": 20} | words),
                **(given if prompt else {}),
            )
        )
    return found


@pytest.mark.parametrize(("how", "words"), HOWS)
def test_tokens_are_those_of_transformers(task: Captioner, how: Generation, words: dict[str, Any]) -> None:
    pictures = blip.pictures(N_PICTURES)
    expected = theirs(pictures, [""] * N_PICTURES, **words)
    singles = [task.caption([picture], how=how)[0] for picture in pictures]
    assert [list(one.token_ids) for one in singles] == [one.sequences[0].tolist() for one in expected]
    if how.n_rows > 1:
        scores = [float(one.sequences_scores[0]) for one in expected]
        assert [one.score for one in singles] == pytest.approx(scores, rel=1e-5)
    assert [one.token_ids for one in task.caption(pictures, how=how)] == [one.token_ids for one in singles]


@pytest.mark.parametrize(("how", "words"), HOWS[:4])
def test_prompted_tokens_are_those_of_transformers(
    task: Captioner, how: Generation, words: dict[str, Any]
) -> None:
    pictures, prompts = blip.pictures(N_PICTURES), (PROMPTS * N_PICTURES)[:N_PICTURES]
    expected = theirs(pictures, [prompt.replace("dogs", "dog ##s") for prompt in prompts], **words)
    batch = task.caption(pictures, prompts, how)
    assert [list(one.token_ids) for one in batch] == [one.sequences[0].tolist() for one in expected]
    assert batch[1].text.startswith("a photo of")


def test_the_margin_tells_how_sure_the_tokens_are(task: Captioner) -> None:
    pictures = blip.pictures(N_PICTURES)
    found = task.caption(pictures)
    for one, other in zip(found, theirs(pictures, [""] * N_PICTURES, output_logits=True), strict=True):
        two_best = [torch.topk(logits[0], 2).values for logits in other.logits]
        assert one.margin == pytest.approx(min(float(a - b) for a, b in two_best), abs=1e-4)


# ── the comparison can fail ────────────────────────────────────────────────────────────────────────────


def test_different_pictures_give_different_captions(task: Captioner) -> None:
    found = task.caption(blip.pictures(50))
    assert len({one.token_ids for one in found if len(one.token_ids) >= 9}) >= 40
    assert len({len(one.token_ids) for one in found}) > 3


def _shifted(feeds: blip.Tensors) -> None:
    feeds["position_ids"] = feeds["position_ids"] + 1


def _unmasked(feeds: blip.Tensors) -> None:
    feeds["attention_mask"] = torch.ones_like(feeds["attention_mask"])


def _swapped(feeds: blip.Tensors) -> None:
    feeds["cross_0_k"] = feeds["cross_0_k"].flip(0)


@pytest.mark.parametrize("spoil", [_shifted, _unmasked, _swapped])
def test_a_wrong_input_gives_other_captions(task: Captioner, spoil: Callable[[blip.Tensors], None]) -> None:
    pictures, prompts = blip.pictures(N_PICTURES)[:5], PROMPTS
    right = [one.token_ids for one in task.caption(pictures, prompts)]
    sessions(task)["text_decoder"].spoil = spoil
    assert [one.token_ids for one in task.caption(pictures, prompts)] != right


# ── words, limits, lengths ─────────────────────────────────────────────────────────────────────────────


def test_the_bundle_says_what_the_user_does_not() -> None:
    picture = blip.pictures(N_PICTURES)[:1]
    said = opened(prompt="a photo of", max_new_tokens=6, min_new_tokens=2, beams=3)
    how = Generation(Beams(3), max_new_tokens=6, min_new_tokens=2)
    assert said.caption(picture) == opened().caption(picture, "a photo of", how)
    assert said.caption(picture, "") == opened().caption(picture, "", how)


def test_a_prompt_that_does_not_fit_is_refused_or_cut_by_name(task: Captioner) -> None:
    picture = blip.pictures(N_PICTURES)[:1]
    with pytest.raises(InputError) as caught:
        task.caption(picture, "cat " * 2500)
    assert str(caught.value) == (
        "the prompt for picture 1 has 2500 tokens, 19 fit: 20 positions are kept for new tokens\n"
        "  do:    shorten it, ask for fewer new tokens (--max-new-tokens), or ask for a cut: truncate=True "
        "(--truncate) keeps the first ones"
    )
    assert task.caption(picture, "cat " * 34, Generation(max_new_tokens=5))
    [cut] = task.caption(picture, "cat " * 2500, truncate=True)
    assert cut == replace(task.caption(picture, "cat " * 19)[0], n_truncated=2481)
    assert len(cut.token_ids) <= blip.POSITIONS
    with pytest.raises(InputError, match="max_new_tokens is 40, the model places 40 tokens"):
        task.caption(picture, how=Generation(max_new_tokens=40))
    assert len(task.caption(picture, how=Generation(max_new_tokens=39, min_new_tokens=38))[0].token_ids) == 40


def test_nothing_is_computed_before_everything_is_read(task: Captioner, tmp_path: Path) -> None:
    good = blip.drawn(tmp_path, "good.png", "red")
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    with pytest.raises(InputError, match="bad.jpg is no picture that anyport reads"):
        task.caption([good, bad])
    with pytest.raises(InputError, match="the prompt for picture 2 has 30 tokens, 19 fit"):
        task.caption([good.read_bytes()] * 2, ["", "cat " * 30])
    assert all(session.n_runs == 0 for session in sessions(task).values())


def test_no_picture_is_no_caption(task: Captioner) -> None:
    assert task.caption([]) == []
    with pytest.raises(InputError, match="caption takes a list of pictures, not one str"):
        task.caption("a.png")


@pytest.mark.parametrize("kind", ["1x1", "long", "alpha", "CMYK", "16-bit", "EXIF"])
def test_pictures_of_every_kind_have_a_caption(task: Captioner, tmp_path: Path, kind: str) -> None:
    image = Image.open(blip.drawn(tmp_path, "a.png", "blue"))
    made = {
        "1x1": image.resize((1, 1)),
        "long": image.resize((20_000, 2)),
        "alpha": image.convert("RGBA"),
        "CMYK": image.convert("CMYK"),
        "16-bit": Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
        "EXIF": image,
    }[kind]
    exif = Image.Exif()
    if kind == "EXIF":
        exif[0x0112] = 6
    made.save(path := tmp_path / "made.tiff", exif=exif)
    found = task.caption([path, path])
    assert found[0].token_ids == found[1].token_ids
    assert found[0].file == str(path)


def test_a_decoder_that_fails_is_named(task: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = sessions(task)["text_decoder"]
    first = decoder.run
    monkeypatch.setattr(decoder, "run", lambda feeds: first(feeds) | {"logits": np.full((1, 50), np.nan)})
    with pytest.raises(SessionError, match="the decoder's scores are not finite"):
        task.caption(blip.pictures(N_PICTURES)[:1])


# ── streaming and sampling ─────────────────────────────────────────────────────────────────────────────


def test_a_caption_can_be_watched(task: Captioner) -> None:
    picture = blip.pictures(N_PICTURES)[0]
    for how in (Generation(), Generation(Sample(7))):
        [whole] = task.caption([picture], "a photo", how)
        parts = list(task.stream(picture, "a photo", how))
        assert tuple(part.token_id for part in parts) == whole.token_ids[3:]
        assert parts[-1].text == whole.text
        assert all(part.text.startswith("a photo") for part in parts)
    with pytest.raises(UsageError) as caught:
        task.stream(picture, how=Generation(Beams(2)))  # at once, before the first token is asked for
    assert str(caught.value) == (
        "beam search cannot be streamed: its text may change until the end, and 2 beams are asked for\n"
        "  do:    ask for one beam (--beams 1), or for the whole text"
    )


def test_a_stream_is_checked_before_its_first_token_is_asked_for(task: Captioner) -> None:
    with pytest.raises(InputError, match="there is no file nope.png"):
        task.stream("nope.png")
    with pytest.raises(InputError, match="the prompt for picture 1 has 30 tokens, 19 fit"):
        task.stream(blip.pictures(1)[0], "cat " * 30)
    with pytest.raises(UsageError, match="beam search cannot be streamed"):
        task.stream(blip.pictures(1)[0], how=Generation(Beams(3)))
    task.stream(blip.pictures(1)[0])
    assert all(session.n_runs == 0 for session in sessions(task).values())


def test_a_caption_comes_in_pieces(task: Captioner, tmp_path: Path) -> None:
    name = str(blip.drawn(tmp_path, "a.png", "red"))
    [whole] = task.caption([name], "a photo of")
    pieces = list(task.pieces([name], {"prompt": "a photo of", "stream": True}))
    assert len(pieces) > 2
    assert "".join(pieces) == whole.text


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["a.png", "b.png"], {}, "--stream shows one picture at a time, 2 are given"),
        ([], {}, "no picture is given"),
        (["a.png"], {"truncate": True}, "--stream and --truncate cannot go together"),
    ],
)
def test_what_no_stream_can_show_is_refused(
    task: Captioner, names: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        list(task.pieces(names, {"stream": True} | options))
    assert caught.value.what == message
    assert all(session.n_runs == 0 for session in sessions(task).values())


def test_an_answer_at_once_is_no_stream(task: Captioner) -> None:
    with pytest.raises(UsageError) as caught:
        task.answer(["a.png"], {"stream": True})
    assert str(caught.value) == (
        "--stream shows a text while it is written, --json prints one document at the end\n"
        "  do:    leave one of the two out"
    )


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    graphs = blip.graphs("caption")
    task = open_task(graphs, graphs.settings, TaskOptions(progress=lambda *words: told.append(words)))
    task.caption(blip.pictures(N_PICTURES))
    assert told == [("pictures read", n, 10) for n in range(1, 11)] + [
        ("texts written", 8, 10),
        ("texts written", 10, 10),
    ]


def test_a_drawn_caption_does_not_depend_on_its_neighbours(task: Captioner) -> None:
    pictures, how = blip.pictures(N_PICTURES), Generation(Sample(11, 1.5, 0, 0.9))
    batch = [one.token_ids for one in task.caption(pictures, how=how)]
    assert batch == [task.caption([picture], how=how)[0].token_ids for picture in pictures]
    assert batch != [one.token_ids for one in task.caption(pictures, how=Generation(Sample(12, 1.5, 0, 0.9)))]


# ── the command line, settings, closing ────────────────────────────────────────────────────────────────


def test_words_of_a_command_line(task: Captioner, tmp_path: Path) -> None:
    names = [str(blip.drawn(tmp_path, f"{colour}.png", colour)) for colour in ("red", "blue")]
    found = task.answer(names, {"prompt": "a photo of", "beams": 3, "max_new_tokens": 5})
    expected = task.caption(names, "a photo of", Generation(Beams(3), max_new_tokens=5))
    assert [answer["token_ids"] for answer in found.record["answers"]] == [
        list(one.token_ids) for one in expected
    ]
    assert found.lines[0] == f"  {names[0]}    {expected[0].text}"
    with pytest.raises(UsageError, match="no picture is given"):
        task.answer([], {})


def test_settings_are_checked() -> None:
    parts = {name: blip.signature(name) for name in blip.MODELS["caption"][1]}
    check_settings("caption", blip.settings(), parts)
    what = "settings of the task 'caption'"
    for settings, message in (
        (blip.settings() | {"txt": 1}, f"{what}: unknown key 'txt' (did you mean 'text'?)"),
        (
            blip.settings(max_new_tokens=40),
            "settings: generation.max_new_tokens = 40 and one before",
        ),
        (blip.settings(min_new_tokens=30), "min_new_tokens is 30, it must be 0 to max_new_tokens"),
        (blip.settings() | {"text": blip.TEXT | {"bos": None}}, "settings: text.bos is missing"),
        (
            blip.settings() | {"text": blip.TEXT | {"sep": 99}},
            "settings: text.sep = 99, the model has",
        ),
        (
            blip.settings() | {"picture": blip.PICTURE | {"size": [64, 64]}},
            f"{what} make pictures of 3 channels, 64 x 64, the model's input 'pixel_values' is",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            check_settings("caption", settings, parts)
        assert caught.value.what.startswith(message)


def test_closing_gives_everything_back() -> None:
    with opened() as task:
        graphs = task._parts.graphs
    task.close()
    assert not graphs.is_open  # type: ignore[attr-defined]
    assert not any(session.is_open for session in sessions(task).values())
    assert task_module("caption").Options().__struct_fields__
