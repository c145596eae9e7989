"""Which texts fit which pictures: the scores of transformers, and rankings by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from anyport.errors import InputError, UsageError
from anyport.task import TaskOptions, check_settings
from anyport.task.match import Matcher, Ranking, open_task
from tests.task import blip

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    "a cat on the sofa",
    "two dog",
    "a red car in the street",
    "what is it ?",
    "",
    "house with a green tree",
    "a man",
]
N_PICTURES = 6


def opened() -> Matcher:
    graphs = blip.graphs("match")
    return open_task(graphs, graphs.settings, TaskOptions())


@pytest.fixture
def task() -> Matcher:
    return opened()


def sessions(task: Matcher) -> dict[str, blip.TorchPart]:
    found: dict[str, blip.TorchPart] = task._parts.graphs.sessions  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="module")
def theirs() -> tuple[np.ndarray, np.ndarray]:
    """Return transformers' probabilities and similarities of every picture and text, one pair at a time."""
    scores, similar = np.zeros((N_PICTURES, len(TEXTS))), np.zeros((N_PICTURES, len(TEXTS)))
    for i, values in enumerate(blip.pixel_values(blip.pictures(12)[:N_PICTURES])):
        for j, text in enumerate(TEXTS):
            ids = torch.tensor([[blip.START, *blip.word_ids(text), blip.SEP]])
            words = {"input_ids": ids, "pixel_values": values[None], "attention_mask": torch.ones_like(ids)}
            with torch.no_grad():
                scores[i, j] = torch.softmax(blip.matcher()(**words).itm_score, -1)[0, 1]
                similar[i, j] = blip.matcher()(**words, use_itm_head=False).itm_score[0, 0]
    return scores, similar


Theirs = tuple[np.ndarray, np.ndarray]


def test_pairs_have_the_scores_of_transformers(task: Matcher, theirs: Theirs) -> None:
    found = task.match(blip.pictures(12)[:N_PICTURES], TEXTS[:N_PICTURES])
    np.testing.assert_allclose([one.score for one in found], np.diagonal(theirs[0]), atol=1e-5)
    np.testing.assert_allclose([one.similarity for one in found], np.diagonal(theirs[1]), atol=1e-5)
    assert [one.text for one in found] == TEXTS[:N_PICTURES]
    assert found[1].token_ids == (blip.START, *blip.word_ids("two dog"), blip.SEP)
    assert np.ptp(theirs[0]) > 0.1  # the pictures and texts are not all alike


def test_similarities_of_all_with_all(task: Matcher, theirs: Theirs) -> None:
    found = task.similarity(blip.pictures(12)[:N_PICTURES], TEXTS)
    np.testing.assert_allclose(found, theirs[1], atol=1e-5)
    assert task.similarity([], TEXTS).shape == (0, len(TEXTS))
    assert task.similarity(blip.pictures(12)[:2], []).shape == (2, 0)


def test_texts_are_ranked_for_each_picture(task: Matcher, theirs: Theirs) -> None:
    found = task.rank(blip.pictures(12)[:N_PICTURES], TEXTS, Ranking(top=3))
    for i, matches in enumerate(found):
        order = np.argsort(-theirs[0][i])[:3]
        assert [one.text for one in matches] == [TEXTS[j] for j in order]
        assert {one.file for one in matches} == {f"picture {i + 1}"}


def test_pictures_are_ranked_for_each_text(task: Matcher, theirs: Theirs) -> None:
    found = task.rank_pictures(TEXTS, blip.pictures(12)[:N_PICTURES], Ranking(top=4))
    for j, matches in enumerate(found):
        order = np.argsort(-theirs[0][:, j])[:4]
        assert [one.file for one in matches] == [f"picture {i + 1}" for i in order]
        assert {one.text for one in matches} == {TEXTS[j]}
    assert task.rank_pictures(TEXTS, []) == [[] for _ in TEXTS]


def test_only_the_most_similar_are_looked_at_closely(task: Matcher, theirs: Theirs) -> None:
    [matches] = task.rank(blip.pictures(12)[:1], TEXTS, Ranking(top=1, candidates=2))
    near = np.argsort(-theirs[1][0])[:2]
    assert matches[0].text == TEXTS[max(near, key=lambda j: theirs[0][0, j])]
    assert len(task.rank(blip.pictures(12)[:1], TEXTS, Ranking(top=5, candidates=1))[0]) == 5
    assert len(task.rank(blip.pictures(12)[:1], TEXTS, Ranking(top=50))[0]) == len(TEXTS)


def test_nothing_is_computed_twice(task: Matcher) -> None:
    pictures = blip.pictures(12)
    first = task.rank(pictures, TEXTS, Ranking(top=2))
    assert sessions(task)["vision_encoder"].n_runs == 1
    assert sessions(task)["text_encoder"].n_runs == 1
    assert task.rank(pictures, TEXTS, Ranking(top=2)) == first
    assert task.match([pictures[0]], [TEXTS[0]])[0].similarity == task.similarity([pictures[0]], TEXTS)[0, 0]
    assert sessions(task)["vision_encoder"].n_runs == 1
    assert sessions(task)["text_encoder"].n_runs == 1


def test_the_same_parts_embed(task: Matcher) -> None:
    [one] = task.embedder.embed_pictures(blip.pictures(12)[:1])
    [text] = task.embedder.embed_texts([TEXTS[0]])
    assert one.features is not None
    assert text.features is not None
    expected = task.similarity(blip.pictures(12)[:1], [TEXTS[0]])[0, 0]
    assert one.features @ text.features == pytest.approx(expected, abs=1e-6)


def test_wrong_words_are_refused(task: Matcher) -> None:
    with pytest.raises(InputError, match="there are 2 pictures and 3 texts"):
        task.match(blip.pictures(12)[:2], TEXTS[:3])
    with pytest.raises(InputError, match="text 2 has 50 tokens, 38 fit"):
        task.rank(blip.pictures(12)[:1], ["a", "cat " * 50])
    assert task.rank(blip.pictures(12)[:1], ["a", "cat " * 50], truncate=True)
    assert task.match([], []) == []
    for words in ({"top": 0}, {"candidates": 0}):
        with pytest.raises(UsageError, match="is 0, it must be 1 or more"):
            Ranking(**words)


def test_words_of_a_command_line(task: Matcher, tmp_path: Path) -> None:
    names = [str(blip.drawn(tmp_path, f"{colour}.png", colour)) for colour in ("red", "blue")]
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat\n\ntwo dog\nsky\n")
    found = task.answer(names, {"texts": str(texts), "top": 2})
    expected = task.rank(names, ["a cat", "two dog", "sky"], Ranking(top=2))
    assert [len(answer["matches"]) for answer in found.record["answers"]] == [2, 2]
    best = expected[1][0]
    assert found.record["answers"][1]["file"] == names[1]
    assert found.record["answers"][1]["matches"][0] == {
        "file": names[1],
        "text": best.text,
        "token_ids": list(best.token_ids),
        "score": best.score,
        "similarity": best.similarity,
        "n_truncated": 0,
    }
    width = len(names[1])
    assert (
        found.lines[2] == f"  {names[1]}   {100 * best.score:5.1f} %   {best.similarity:6.3f}   {best.text}"
    )
    assert found.lines[3].startswith(" " * (width + 5))
    turned = task.answer(names, {"texts": str(texts), "per_text": True})
    assert [answer["text"] for answer in turned.record["answers"]] == ["a cat", "two dog", "sky"]


def test_wide_characters_shift_no_column(task: Matcher, tmp_path: Path) -> None:
    name, texts = str(blip.drawn(tmp_path, "a.png", "red")), tmp_path / "texts.txt"
    words = ["a cat", "猫猫", "🐱 dog", "cafe\u0301"]
    texts.write_text("\n".join(words), encoding="utf-8")
    lines = task.answer([name], {"texts": str(texts), "per_text": True}).lines
    # 5 columns for the widest (emoji are two wide, a combining accent none), and three between
    pads = {"a cat": 4, "猫猫": 5, "🐱 dog": 3, "cafe\u0301": 5}
    for line, word in zip(lines, words, strict=True):
        assert line.startswith(f"  {word}{' ' * pads[word]}")
        assert line[2 + len(word) + pads[word] :].lstrip()[0].isdigit()


def test_a_text_that_was_cut_is_noted(task: Matcher, tmp_path: Path) -> None:
    texts, picture = tmp_path / "texts.txt", str(blip.drawn(tmp_path, "a.png", "red"))
    texts.write_text("cat " * 50 + "\nsky\n")
    found = task.answer([picture], {"texts": str(texts), "truncate": True})
    by_text = {match["text"].strip(): match["n_truncated"] for match in found.record["answers"][0]["matches"]}
    assert by_text == {("cat " * 50).strip(): 12, "sky": 0}
    shown = ("cat " * 10) + "…"
    assert found.notes == (f"the text '{shown}' is too long: its last 12 tokens were left out",)


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    graphs = blip.graphs("match")
    task = open_task(graphs, graphs.settings, TaskOptions(progress=lambda *words: told.append(words)))
    task.rank(blip.pictures(12)[:6], TEXTS)
    assert [one for one in told if one[1] == one[2]] == [("pictures read", 6, 6), ("pictures ranked", 6, 6)]
    told.clear()
    task.rank_pictures(TEXTS, blip.pictures(12)[:6])
    assert told[-1] == ("pairs compared", 42, 42)
    told.clear()
    task.embedder.embed_texts([f"{'cat ' * (i // 5)}{TEXTS[i % 5]}" for i in range(40)])
    assert told[-1] == ("texts read", 40, 40)


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ([], {"texts": "a.txt"}, "no picture is given"),
        (["a.png"], {}, "no texts are given"),
        (["a.png"], {"text": "a"}, "options of the task 'match': unknown key 'text' (did you mean 'texts'?)"),
    ],
)
def test_wrong_options_are_refused(
    task: Matcher, words: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        task.answer(words, options)
    assert caught.value.what == message


def test_settings_are_checked_and_closing_gives_everything_back() -> None:
    parts = {name: blip.signature(name) for name in blip.MODELS["match"][1]}
    check_settings("match", blip.settings(), parts)
    with pytest.raises(UsageError, match="settings of the task 'match': unknown key 'generation'"):
        check_settings("match", blip.settings(beams=2), parts)
    with opened() as task:
        pass
    assert not any(session.is_open for session in sessions(task).values())
