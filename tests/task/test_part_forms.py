"""The parts of a bundle with several, and opening them together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anyport.bundle import PartEntry
from anyport.errors import SessionError, UsageError
from anyport.runtime.signature import signature_of_part
from anyport.task import TaskOptions
from anyport.task.part_forms import FORMS, OpenParts, check_parts, known_parts
from tests.task import blip

CAPTION = blip.MODELS["caption"][1]


def parts(**changes: Any) -> dict[str, Any]:
    return {name: blip.signature(name) for name in blip.FORMS} | changes


def test_every_part_of_the_table_is_known() -> None:
    assert list(FORMS) == sorted(FORMS)
    assert set(FORMS) == set(blip.FORMS)
    check_parts("caption", FORMS, parts())


def test_a_missing_part_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        check_parts("caption", CAPTION, {"text_decoder": blip.signature("text_decoder")})
    assert (
        caught.value.what == "the task 'caption' needs a part 'vision_encoder', the model has: text_decoder"
    )


def test_tensors_that_are_missing_or_unknown_are_named() -> None:
    inputs, outputs = blip.FORMS["text_decoder"]
    fewer = {name: text for name, text in inputs.items() if name != "past_1_v"} | {"extra": "float32[batch]"}
    changed = signature_of_part(PartEntry(fewer, outputs, {"batch": "1..4"}))
    with pytest.raises(UsageError) as caught:
        check_parts("caption", CAPTION, parts(text_decoder=changed))
    assert caught.value.what.startswith(
        "the inputs of part 'text_decoder' must be attention_mask, cross_0_k,"
    )
    assert caught.value.what.endswith("; missing: past_1_v; unknown: extra")


@pytest.mark.parametrize("form", ["float32[2, 3, 32, 32]", "float32[batch, 3072]"])
def test_tensors_of_another_form_are_named(form: str) -> None:
    changed = signature_of_part(
        PartEntry({"pixel_values": form}, {"image_embeds": "float32[batch, 17, 32]"}, {"batch": "1..4"})
    )
    with pytest.raises(UsageError) as caught:
        check_parts("caption", CAPTION, parts(vision_encoder=changed))
    assert caught.value.what == (
        "the inputs of part 'vision_encoder': 'pixel_values' must have 4 axes, the first of them dynamic; "
        f"it is {form}"
    )


def test_parts_are_opened_and_closed_together() -> None:
    graphs = blip.graphs("caption")
    opened = OpenParts(graphs, CAPTION, TaskOptions())
    assert all(name in opened for name in CAPTION)
    assert "itm_head" not in opened
    opened.close()
    opened.close()
    assert not graphs.is_open
    assert not any(session.is_open for session in graphs.sessions.values())


def test_if_one_does_not_open_the_others_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = blip.graphs("caption")
    first = graphs.open

    def fails(part: str, options: TaskOptions) -> blip.TorchPart:
        if part == "text_decoder":
            raise SessionError("no memory")
        return first(part, options)

    monkeypatch.setattr(graphs, "open", fails)
    with pytest.raises(SessionError, match="no memory"):
        OpenParts(graphs, CAPTION, TaskOptions())
    assert [session.is_open for session in graphs.sessions.values()] == [False, False]


def test_no_more_rows_than_a_part_takes() -> None:
    graphs = blip.graphs("caption")
    opened = OpenParts(graphs, CAPTION, TaskOptions())
    assert opened.max_rows("vision_encoder", 16) == 16
    assert opened.max_rows("vision_encoder", 100) == 64
    graphs.parts["vision_encoder"] = replace(blip.signature("vision_encoder"), dims={})
    assert opened.max_rows("vision_encoder", 100) == 100
    graphs.parts["vision_encoder"] = None
    with pytest.raises(UsageError, match="nothing is known of the part 'vision_encoder'"):
        opened.signature("vision_encoder")


def test_a_plain_file_s_part_is_not_known() -> None:
    signature = blip.signature("itm_head")
    assert known_parts({"network": None, "itm_head": signature}) == {"itm_head": signature}
