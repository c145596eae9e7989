from __future__ import annotations

from anyport.report.line import Line, Mark, listed, not_applicable


def test_a_line_as_json_has_the_words_of_its_mark() -> None:
    line = not_applicable("no text").named("boundary inputs")
    assert line == Line(Mark.NOT_APPLICABLE, "no text", "", "boundary inputs")
    assert line.to_json() == {
        "name": "boundary inputs",
        "status": "NOT APPLICABLE",
        "evidence": "no text",
        "do": "",
    }


def test_a_list_says_how_many_more_there_are() -> None:
    assert listed([]) == ""
    assert listed(["a", "b", "c", "d", "e"], most=4) == "a, b, c, d and 1 more"
    assert listed(["a", "b"]) == "a, b"
