"""The list as a whole: order, marks, words, several parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyport.bundle import Step, open_bundle
from anyport.errors import BundleError, UsageError
from anyport.report import LINES, CheckSettings, Mark, release_checklist
from anyport.report.checklist import steps_of
from anyport.report.line import failed, merged, passed, untested
from anyport.runtime import SessionOptions
from tests.house import tree
from tests.report.listing import EXPORT, QUICK, Subject, listed, up_to

if TYPE_CHECKING:
    from pathlib import Path


def test_a_good_bundle_passes_all_that_it_can(tmp_path: Path) -> None:
    settings = CheckSettings(n_runs=60, session=SessionOptions(n_threads=1, memory_limit_bytes=64 << 20))
    found = listed(tmp_path, Subject(), settings)
    marks = {line.name: line.mark for line in found.lines}
    assert list(marks) == [name for name, _ in LINES]
    assert len(marks) == 15
    others = {name: mark for name, mark in marks.items() if mark is not Mark.PASS}
    assert others == {"quantization tried": Mark.UNTESTED, "whole task": Mark.NOT_APPLICABLE}
    assert not found.failed
    assert found.summary() == "13 pass, 1 untested, 1 not applicable"


def test_every_line_has_evidence_and_its_text(tmp_path: Path) -> None:
    found = listed(tmp_path, Subject())
    text = found.text()
    assert text.startswith("small.port, variant fp32\n")
    for one in found.lines:
        assert one.evidence
        assert one.evidence in text
        assert one.do in text
    record = found.to_json()
    assert [entry["name"] for entry in record["lines"]] == [name for name, _ in LINES]
    assert {entry["status"] for entry in record["lines"]} == {"PASS", "UNTESTED", "NOT APPLICABLE"}
    assert record["failed"] is False


def test_the_bundle_that_ships_has_no_failing_line() -> None:
    with open_bundle(tree.PACKAGE / "demo" / "digits.port") as bundle:
        found = release_checklist(bundle, QUICK)
    assert [line.evidence for line in found.lines if line.mark is Mark.FAIL] == []
    assert found.count(Mark.PASS) >= 9


def test_one_failing_line_fails_the_list(tmp_path: Path) -> None:
    found = listed(tmp_path, Subject(answer_off=1.0))
    assert found.failed
    assert found.summary() == "8 pass, 3 fail, 3 untested, 1 not applicable"


def test_a_variant_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the bundle has no variant 'int8'"):
        listed(tmp_path, Subject(), CheckSettings(variant="int8"))


def test_a_graph_that_is_no_file_of_onnx(tmp_path: Path) -> None:
    with Subject().open(tmp_path) as opened:
        place = opened.graph_file("network").path
        place.write_bytes(b"junk, of no kind" * 20)
        with pytest.raises(BundleError):
            release_checklist(opened, QUICK)


def test_parts_become_one_line_with_the_worst_mark() -> None:
    lines = [
        passed("fine").named("a"),
        failed("broken", "mend it").named("a"),
        untested("who knows").named("a"),
    ]
    found = merged(["one", "two", "three"], lines)
    assert (found.mark, found.name, found.do) == (Mark.FAIL, "a", "mend it")
    assert found.evidence == "one: fine; two: broken; three: who knows"
    assert merged(["one", "two"], [lines[0], lines[0]]) == lines[0]


def test_steps_belong_to_the_part_named_last() -> None:
    steps = [
        Step("fetch", {}, ""),
        Step("export", {"part": "a"}, "1"),
        Step("simplify", {}, "2"),
        Step("export", {"part": "b"}, "3"),
        Step("simplify", {}, "4"),
    ]
    assert [step.result for step in steps_of("a", steps, ["a", "b"])] == ["", "1", "2"]
    assert [step.result for step in steps_of("b", steps, ["a", "b"])] == ["", "3", "4"]
    assert [step.result for step in steps_of("a", steps[2:3], ["a"])] == ["2"]


def test_a_bundle_without_answers_is_untested_where_it_needs_them(tmp_path: Path) -> None:
    steps = (EXPORT, Step("reweight", {}, "unproven"))
    lines = {one.name: one for one in listed(tmp_path, Subject(sizes=(), steps=steps)).lines}
    needing = ("inference mode", "control flow kept", "dynamic axes as declared", "mse < 1e-5, max abs",
               "batch sizes", "boundary inputs", "no leak")  # fmt: skip
    for name in needing:
        assert lines[name].mark is Mark.UNTESTED, name
        assert lines[name].do.startswith("anyport reweight ")
        assert lines[name].do.endswith(" --against SOURCE")


def test_hostile_steps_and_levels_are_lines(tmp_path: Path) -> None:
    found = listed(tmp_path, Subject(steps=(Step("export", {"exporter": ["a"]}, ""),), optimization="turbo"))
    marks = {one.name: one.mark for one in found.lines}
    assert marks["control flow kept"] is Mark.UNTESTED
    assert marks["optimization level chosen"] is Mark.FAIL


def test_the_high_end_of_an_axis_must_run(tmp_path: Path) -> None:
    found = listed(tmp_path, Subject(words=up_to(64))).lines[4]
    assert (found.mark, found.evidence) == (
        Mark.UNTESTED,
        "batch 1..64 ran at 1, 2, 3; never at batch=64",
    )
