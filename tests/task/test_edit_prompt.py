"""Instructions as tokens, against transformers' processor in the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.errors import BundleError, InputError, UsageError
from anyport.task.edit_patches import grid_of
from anyport.task.edit_prompt import Instruction, InstructionReader
from anyport.task.edit_settings import editor_settings
from anyport.task.edit_sizes import picture_sizes
from tests.task import qwen_edit

if TYPE_CHECKING:
    import torch

PARTS = {part: qwen_edit.signature(part) for part in qwen_edit.FORMS}
TEXTS = [
    "",
    " ",
    "make the sky red, please",
    "把白色T恤换成黑色,并添加'新品上市'文字",
    "  two  spaces\nand a line ",
    "naïve café 👩‍🚀 e\u0301",
    "Put the cat on the table. " * 40,
    "7 + 8 = 15 {} {0} %s",
]


def reader(**more: Any) -> InstructionReader:
    graphs = qwen_edit.graphs(text=more)
    return InstructionReader(graphs, editor_settings(graphs.settings, PARTS).text)


@pytest.mark.parametrize("names", ["f", "t,tiny", "f,tall,g"])
@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_the_pipeline(names: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, seen = qwen_edit.pipeline(), {}

    def stop(**words: torch.Tensor) -> None:
        seen.update(words)
        raise InterruptedError

    monkeypatch.setattr(pipe.text_encoder, "forward", stop)
    settings = editor_settings(qwen_edit.settings(), PARTS).picture
    pictures = [qwen_edit.photographs()[name] for name in names.split(",")]
    sizes = [picture_sizes(picture.size, settings, "a") for picture in pictures]
    conditions = [
        pipe.image_processor.resize(picture, one.condition[1], one.condition[0])
        for picture, one in zip(pictures, sizes, strict=True)
    ]
    with pytest.raises(InterruptedError):
        pipe.encode_prompt([text], conditions)
    merged = [rows * columns // 4 for rows, columns in (grid_of(one, settings) for one in sizes)]
    found = reader()
    tokens = found.tokens(found.read(text, "it", 0), merged)
    assert tokens.dtype == np.int64
    assert tokens.tolist() == seen["input_ids"][0].tolist()


@pytest.mark.parametrize("most", [1, 2, 5, 17])
@pytest.mark.parametrize("text", TEXTS[2:4] + TEXTS[5:6])
def test_what_is_cut_is_said_and_no_character_is_halved(text: str, most: int) -> None:
    whole, found = reader().read(text, "it", 0), reader().read(text, "it", most)
    assert whole.cut is None
    assert whole.note("it") is None
    assert found.n_found == len(whole.tokens)
    assert found.tokens == whole.tokens[: len(found.tokens)]
    if len(whole.tokens) <= most:
        assert found == whole
        return
    assert most - 12 <= len(found.tokens) <= most
    assert found.cut
    assert text.endswith(found.cut)
    kept = qwen_edit.pipeline().tokenizer.decode(found.tokens)
    assert "\ufffd" not in kept
    note = f"it has {found.n_found} tokens, {len(found.tokens)} are used; cut off: "
    assert (found.note("it") or "").startswith(note)


def test_a_long_cut_is_shown_by_its_beginning() -> None:
    cut = Instruction((1,), 300, "word " * 50)
    assert cut.note("the instruction") == (
        f"the instruction has 300 tokens, 1 are used; cut off: '{('word ' * 50)[:57]}...'"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "it is a NoneType, not text"),
        (["a"], "it is a list, not text"),
        ("a\ud83d", "it holds half a character (a lone surrogate)"),
        ("<|image_pad|>", "it holds '<|image_pad|>', a mark of the model's own"),
        ("x<|endoftext|>", "it holds '<|endoftext|>', a mark of the model's own"),
    ],
)
def test_what_is_no_instruction_is_refused(text: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        reader().read(text, "it", 128)
    assert caught.value.what == message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"n_dropped": 60}, "settings: text.before has 64 tokens, text.n_dropped is 60"),
        ({"picture": "Picture {}:<|im_end|>"}, "settings: text.picture holds the token text.image_pad ="),
        ({"after": "the end"}, "settings: text.picture must end and text.after begin with a mark"),
        ({"after": ""}, "settings: text.picture must end and text.after begin with a mark"),
    ],
)
def test_a_template_that_does_not_fit_its_tokenizer_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        reader(**more)
    assert caught.value.what.startswith(message)


def test_a_damaged_tokenizer_is_refused() -> None:
    graphs = qwen_edit.graphs()
    graphs.files["assets/tokenizer.json"] = b"{}"
    with pytest.raises(BundleError, match="'assets/tokenizer.json' is no tokenizer: "):
        InstructionReader(graphs, editor_settings(graphs.settings, PARTS).text)
