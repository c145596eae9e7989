"""Words to tokens and back: the same as transformers', with limits that are said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from transformers import PreTrainedTokenizerFast

from anyport.errors import BundleError, InputError, MissingExtraError, UsageError
from anyport.task import settings_from
from anyport.task.texts import TextReader, TextSettings, fill_right, read_lines, words_for_each
from tests.task import blip

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = settings_from(blip.TEXT, TextSettings, "settings")
TEXTS = [
    "a cat on the sofa",
    "",
    "What COLOUR is it?",
    "dogs ##s [SEP] sit.",
    "zebra é\tcat\n dog",
    "a" * 300,
]


def reader(**changes: Any) -> TextReader:
    settings = settings_from(blip.TEXT | changes, TextSettings, "settings")
    return TextReader(blip.graphs("caption"), settings, "the task 'caption'")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_bytes(blip.tokenizer_json())
    return PreTrainedTokenizerFast(tokenizer_file=str(path))


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_and_words_are_those_of_transformers(text: str, theirs: PreTrainedTokenizerFast) -> None:
    expected = theirs(text, truncation=False)["input_ids"]
    found = reader().enclosed(text, "text", multimodal=False)
    assert found == expected
    assert reader().words(found) == theirs.decode(expected, skip_special_tokens=True)


def test_what_begins_ends_and_fills_is_not_shown() -> None:
    tokens = [blip.PAD, blip.BOS, *blip.word_ids("a cat"), blip.SEP, blip.PAD]
    assert reader().words(tokens) == "a cat"
    assert reader().words([]) == ""


def test_a_text_read_with_a_picture_has_a_first_token_of_its_own() -> None:
    one = reader(multimodal_start=blip.BOS)
    assert one.enclosed("cat", "text", multimodal=True) == [blip.BOS, *blip.word_ids("cat"), blip.SEP]
    assert one.enclosed("cat", "text", multimodal=False)[0] == blip.START


def test_a_long_text_is_refused_or_cut_by_name(theirs: PreTrainedTokenizerFast) -> None:
    text = "cat " * 2500  # 10,000 characters
    fits = " ".join(["cat"] * (blip.POSITIONS - 2))
    assert len(reader().enclosed(fits, "text", multimodal=False)) == blip.POSITIONS
    with pytest.raises(InputError) as caught:
        reader().enclosed(text, "the question", multimodal=False)
    assert caught.value.what == "the question has 2500 tokens, 38 fit"
    assert caught.value.do == "shorten it, or ask for a cut: truncate=True (--truncate) keeps the first ones"
    cut = reader().enclosed(text, "the question", multimodal=False, truncate=True)
    assert cut == theirs(text, truncation=True, max_length=blip.POSITIONS)["input_ids"]


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(InputError, match="text 1 is a int, not text"):
        reader().enclosed(3, "text 1", multimodal=False)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="text 1 holds half a character"):
        reader().enclosed("a \ud800", "text 1", multimodal=False)


def test_a_damaged_tokenizer_is_named() -> None:
    graphs = blip.graphs("caption")
    graphs.files["assets/tokenizer.json"] = b"{}"
    with pytest.raises(BundleError, match="'assets/tokenizer.json' is no tokenizer: ") as caught:
        TextReader(graphs, SETTINGS, "the task 'caption'")
    assert caught.value.where == "blip.port"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(MissingExtraError) as caught:
        reader()
    assert caught.value.what == "the task 'caption' needs the package 'tokenizers', which is not installed"
    assert caught.value.do == "pip install 'anyport[text]'"


def test_tokens_that_the_model_does_not_have_are_refused() -> None:
    SETTINGS.check(len(blip.VOCABULARY))
    with pytest.raises(UsageError, match="settings: text.bos = 4, the model has 4 tokens"):
        SETTINGS.check(4)


def test_shorter_texts_are_filled_on_the_right() -> None:
    tokens, mask = fill_right([[7], [8, 9, 10]], 0)
    assert tokens.tolist() == [[7, 0, 0], [8, 9, 10]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]


def test_one_text_is_for_every_picture() -> None:
    assert words_for_each("a", 3, "question") == ["a", "a", "a"]
    assert words_for_each(["a", "b"], 2, "question") == ["a", "b"]
    with pytest.raises(InputError, match="there are 3 pictures and 2 questions") as caught:
        words_for_each(["a", "b"], 3, "question")
    assert caught.value.do == "give one question for each"
    with pytest.raises(InputError, match="questions are a int, not a text or a list of texts"):
        words_for_each(3, 3, "question")  # type: ignore[arg-type]


def test_a_file_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffa cat \r\n\r\n  \né dog".encode())
    assert read_lines(str(path)) == ["a cat", "é dog"]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\v", "\f", "\x1c", "\x1e"])
def test_a_line_ends_at_a_line_feed_or_carriage_return_alone(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(f"a{mark}cat\rtwo\r\nthree\nfour".encode())
    assert read_lines(str(path)) == [f"a{mark}cat", "two", "three", "four"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe\x00", "is no UTF-8 text: invalid start byte at byte 0"),
        (b" \n\n", "holds no text"),
    ],
)
def test_a_file_without_texts_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_lines(str(path))
    assert caught.value.what == f"{path} {message}"
