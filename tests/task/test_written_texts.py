"""How texts are shown."""

from __future__ import annotations

from dataclasses import replace

from anyport.task.written_texts import WrittenText, new_words, shown_texts, truncations

TEXTS = [WrittenText("a.jpg", "a cat", (4, 5), -0.5, 0.1), WrittenText("long.jpg", "a dog", (4,), -1.0, None)]


def test_one_text_stands_alone() -> None:
    assert shown_texts("caption", TEXTS[:1], "prompt").lines == ("  a cat",)


def test_several_show_their_names() -> None:
    found = shown_texts("caption", TEXTS, "prompt")
    assert found.lines == ("  a.jpg      a cat", "  long.jpg   a dog")
    assert found.record == {
        "task": "caption",
        "answers": [
            {"file": "a.jpg", "text": "a cat", "token_ids": [4, 5], "score": -0.5, "n_truncated": 0},
            {"file": "long.jpg", "text": "a dog", "token_ids": [4], "score": -1.0, "n_truncated": 0},
        ],
    }
    assert found.notes == ()


def test_words_that_were_cut_are_noted_once() -> None:
    found = shown_texts("caption", [replace(text, n_truncated=7) for text in TEXTS], "prompt")
    assert found.notes == ("the prompt is too long: its last 7 tokens were left out",)
    assert found.record["answers"][1]["n_truncated"] == 7
    assert truncations([("text 1", 0), ("text 2", 3)]) == (
        "text 2 is too long: its last 3 tokens were left out",
    )


def test_what_is_new_in_a_growing_text() -> None:
    for texts in (["a", "a cat", "a cat."], ["", "a", "a"], ["a caf\ufffd", "a café"], ["a \ufffd"], []):
        assert "".join(new_words(texts)) == (texts[-1] if texts else "")
    assert list(new_words(["a", "a caf\ufffd", "a café"])) == ["a", " café"]
