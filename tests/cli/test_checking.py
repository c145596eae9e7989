from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.report.listing import Subject

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.shell import Shell


def test_the_list_is_printed_with_its_evidence(shell: Shell, tmp_path: Path) -> None:
    Subject().open(tmp_path).close()
    done = shell("verify", tmp_path / "small.port", "--checklist", "--runs", "60")
    assert done.code == 0
    assert "PASS             batch sizes" in done.out
    assert "UNTESTED" in done.out


def test_a_failing_line_is_exit_code_1_and_json(shell: Shell, tmp_path: Path) -> None:
    Subject(answer_off=1.0).open(tmp_path).close()
    done = shell("verify", tmp_path / "small.port", "--checklist", "--runs", "60", "--json")
    assert done.code == 1
    record = done.record
    assert record["failed"] is True
    assert len(record["lines"]) == 15


def test_limits_are_those_of_the_service(shell: Shell, tmp_path: Path) -> None:
    Subject().open(tmp_path).close()
    words = ("--threads", "1", "--max-memory", "64MB", "--runs", "60", "--soak-seconds", "5", "--json")
    done = shell("verify", tmp_path / "small.port", "--checklist", *words)
    lines = {line["name"]: line for line in done.record["lines"]}
    assert lines["threads and memory limited"]["status"] == "PASS"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("m.onnx", "--checklist"), "--checklist is of a whole bundle"),
        (("m.port", "--checklist", "--part", "a"), "--checklist is of a whole bundle"),
        (("m.port", "--checklist", "--max-cases", "3"), "--max-cases does not apply to --checklist"),
        (("m.port", "--checklist", "--seed", "0"), "--seed does not apply to --checklist"),
        (("m.port", "--checklist", "--allow", "failed"), "--allow does not apply to --checklist"),
        (("m.port", "--checklist", "--input", "x=y"), "--input does not apply to --checklist"),
        (("m.port", "--checklist", "--dim", "x=1"), "--dim does not apply to --checklist"),
        (("m.port", "--threads", "2"), "--threads is of the release list"),
        (("m.port", "--max-memory", "2GB"), "--max-memory is of the release list"),
    ],
)
def test_options_that_do_not_belong_together(shell: Shell, words: tuple[str, ...], message: str) -> None:
    done = shell("verify", *words)
    assert done.code == 2
    assert message in done.err


def test_libraries_go_to_every_session(shell: Shell, tmp_path: Path) -> None:
    Subject().open(tmp_path).close()
    done = shell("verify", tmp_path / "small.port", "--checklist", "--library", tmp_path / "none.so")
    assert done.code != 0
    assert "none.so" in done.err
