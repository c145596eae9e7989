"""How texts are shown."""

from __future__ import annotations

from anyport.task.written_texts import WrittenText, shown_texts

TEXTS = [WrittenText("a.jpg", "a cat", (4, 5), -0.5, 0.1), WrittenText("long.jpg", "a dog", (4,), -1.0, None)]


def test_one_text_stands_alone() -> None:
    assert shown_texts("caption", TEXTS[:1]).lines == ("  a cat",)


def test_several_show_their_names() -> None:
    found = shown_texts("caption", TEXTS)
    assert found.lines == ("  a.jpg      a cat", "  long.jpg   a dog")
    assert found.record == {
        "task": "caption",
        "answers": [
            {"file": "a.jpg", "text": "a cat", "token_ids": [4, 5], "score": -0.5},
            {"file": "long.jpg", "text": "a dog", "token_ids": [4], "score": -1.0},
        ],
    }
