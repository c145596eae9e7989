from __future__ import annotations

from dataclasses import replace

import pytest

from anyport.errors import UsageError
from anyport.task.edit_rehearsal import words_of
from anyport.task.rehearsals import TaskRequest, rehearse
from tests.task import qwen_edit
from tests.verify.edit_bundles import recorded

WORDS = {"instruction": "x", "guidance": 1, "steps": 2, "width": 32, "height": 48}


def test_the_answer_is_that_of_the_pipeline() -> None:
    """The graphs say another area: the request's own counts."""
    request, answer = recorded()[0]
    found = rehearse(qwen_edit.graphs(), request)
    assert qwen_edit.psnr(found.picture, answer.picture) >= 115
    assert {part: array.shape[-1] for part, array in found.between.items()} == {
        "vision_encoder": 64,  # channels of the language model
        "text_encoder": 64,
        "vae_encoder": 16,  # the picture is seen 128 pixels wide
        "transformer": 64,
        "vae_decoder": 64,  # and the answer has 64
    }
    elsewhere = replace(request, words={**request.words, "vae_area": 128 * 128})
    assert qwen_edit.psnr(rehearse(qwen_edit.graphs(), elsewhere).picture, answer.picture) < 115


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"steps": 65}, "case 'a': 'steps': expected 'int' <= 64"),
        ({"width": 8}, "case 'a': 'width': expected 'int' >= 16"),
        ({"guidance": 101.0}, "case 'a': 'guidance': expected 'float' <= 100.0"),
        ({"condition_area": 9}, "case 'a': 'condition_area': expected 'int' >= 1024"),
        ({"hight": 9}, "case 'a': unknown key 'hight'"),
    ],
)
def test_words_are_bounded(more: dict[str, float], text: str) -> None:
    assert words_of(TaskRequest("a", WORDS, [])).negative is None
    with pytest.raises(UsageError) as caught:
        words_of(TaskRequest("a", WORDS | more, []))
    assert text in caught.value.what
