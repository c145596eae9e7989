"""Answers: token for token those of transformers' ``generate()``, and a batch is its singles."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from anyport.errors import InputError, UsageError
from anyport.task import TaskOptions, check_settings
from anyport.task.answer import Answerer, open_task
from anyport.task.generation import Beams, Generation, Sample
from tests.task import blip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N_PICTURES = 10
QUESTIONS = ["what colour is the cat ?", "how many ?", "is it a red car with a small bird on it ?", "two"]
ASKED = (QUESTIONS * N_PICTURES)[:N_PICTURES]


def opened() -> Answerer:
    graphs = blip.graphs("answer")
    return open_task(graphs, graphs.settings, TaskOptions())


@pytest.fixture
def task() -> Answerer:
    return opened()


def sessions(task: Answerer) -> dict[str, blip.TorchPart]:
    found: dict[str, blip.TorchPart] = task._parts.graphs.sessions  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (Generation(), {}),
        (Generation(Beams(3)), {"num_beams": 3}),
        (
            Generation(Beams(2, 0.5), min_new_tokens=3, max_new_tokens=9),
            {"num_beams": 2, "length_penalty": 0.5, "min_new_tokens": 3, "max_new_tokens": 9},
        ),
    ],
)
def test_tokens_are_those_of_transformers(task: Answerer, how: Generation, words: dict[str, Any]) -> None:
    pictures = blip.pictures(N_PICTURES)
    expected = []
    for values, question in zip(blip.pixel_values(pictures), ASKED, strict=True):
        ids = torch.tensor([[blip.START, *blip.word_ids(question), blip.SEP]])
        found = blip.answerer().generate(
            input_ids=ids,
            pixel_values=values[None],
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            **({"max_new_tokens": 20} | words),
        )
        expected.append(found[0].tolist())
    singles = [task.ask([one], text, how)[0] for one, text in zip(pictures, ASKED, strict=True)]
    assert [list(one.token_ids) for one in singles] == expected
    assert [list(one.token_ids) for one in task.ask(pictures, ASKED, how)] == expected
    assert len({tuple(one) for one in expected}) > N_PICTURES // 2


def test_one_question_is_for_all_pictures(task: Answerer) -> None:
    pictures = blip.pictures(N_PICTURES)[:3]
    assert task.ask(pictures, QUESTIONS[0]) == task.ask(pictures, [QUESTIONS[0]] * 3)
    assert len({one.token_ids for one in task.ask(pictures[:1] * 4, QUESTIONS)}) == 4
    assert task.ask([], QUESTIONS[0]) == []


def _unmasked(feeds: blip.Tensors) -> None:
    feeds["cross_mask"] = torch.ones_like(feeds["cross_mask"])


def _shifted(feeds: blip.Tensors) -> None:
    feeds["position_ids"] = feeds["position_ids"] + 1


@pytest.mark.parametrize("spoil", [_unmasked, _shifted])
def test_a_wrong_input_gives_other_answers(task: Answerer, spoil: Callable[[blip.Tensors], None]) -> None:
    right = task.ask(blip.pictures(N_PICTURES), ASKED)
    sessions(task)["text_decoder"].spoil = spoil
    wrong = task.ask(blip.pictures(N_PICTURES), ASKED)
    assert [one.token_ids for one in wrong] != [one.token_ids for one in right]


@pytest.mark.parametrize(
    ("question", "why"),
    [("", "is empty"), ("  \n", "is empty"), ("\u200b\0", "has no words that the model reads")],
)
def test_an_empty_question_is_refused(task: Answerer, question: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        task.ask([blip.pictures(N_PICTURES)[0]], question)
    assert (caught.value.what, caught.value.do) == (f"the question for picture 1 {why}", "ask something")


def test_a_long_question_is_refused_or_cut_by_name(task: Answerer) -> None:
    pictures = blip.pictures(N_PICTURES)[:1]
    with pytest.raises(InputError, match="the question for picture 1 has 2500 tokens, 38 fit"):
        task.ask(pictures, "cat " * 2500)
    [cut], [fits] = task.ask(pictures, "cat " * 2500, truncate=True), task.ask(pictures, "cat " * 38)
    assert cut == replace(fits, n_truncated=2462)
    assert fits.n_truncated == 0


def test_words_of_a_command_line(task: Answerer, tmp_path: Path) -> None:
    name = str(blip.drawn(tmp_path, "a.png", "red"))
    found = task.answer([name], {"question": QUESTIONS[0]})
    [expected] = task.ask([name], QUESTIONS[0])
    assert found.lines == (f"  {expected.text}",)
    assert found.record == {
        "task": "answer",
        "answers": [
            {
                "file": name,
                "text": expected.text,
                "token_ids": list(expected.token_ids),
                "score": expected.score,
                "n_truncated": 0,
            }
        ],
        "question": QUESTIONS[0],
    }
    with pytest.raises(UsageError, match="no question is given") as caught:
        task.answer([name], {})
    assert caught.value.do == 'anyport run BUNDLE PICTURE… --question "what colour is it?"'
    with pytest.raises(UsageError, match="no picture is given"):
        task.answer([], {"question": "what ?"})


def test_an_answer_can_be_watched(task: Answerer, tmp_path: Path) -> None:
    picture = blip.drawn(tmp_path, "a.png", "red")
    for how in (Generation(), Generation(Sample(7))):
        [whole] = task.ask([picture], QUESTIONS[0], how)
        parts = list(task.stream(picture, QUESTIONS[0], how))
        assert tuple(part.token_id for part in parts) == whole.token_ids[1:]
        assert parts[-1].text == whole.text
    [whole] = task.ask([picture], QUESTIONS[0])
    pieces = list(task.pieces([str(picture)], {"question": QUESTIONS[0], "stream": True}))
    assert len(pieces) > 2
    assert "".join(pieces) == whole.text
    with pytest.raises(InputError, match=r"the question for .*a\.png is empty"):
        task.stream(picture, " ")  # at once, before the first token is asked for


def test_settings_are_checked_and_closing_gives_everything_back() -> None:
    parts = {name: blip.signature(name) for name in blip.MODELS["answer"][1]}
    check_settings("answer", blip.settings(), parts)
    with pytest.raises(UsageError, match="the task 'answer' needs a part 'question_encoder'"):
        check_settings("answer", blip.settings(), {k: v for k, v in parts.items() if "question" not in k})
    with opened() as task:
        pass
    assert not any(session.is_open for session in sessions(task).values())
