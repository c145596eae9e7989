"""Four rows of `bench/silent_failures.py`, and its own parts; the bench itself has all rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

import pytest

from tests.house import tree

BENCH: Final = tree.ROOT / "bench"
ROWS: Final = ("column-scale", "damaged-weights", "log-sigmoid", "softmax-opset")
_PARTS: Final = """
import sys
sys.path.insert(0, {bench!r})
import contextlib, doctest, io, json, pathlib, tempfile
import silent_case, silent_failures
from silent_case import Answer, Case, Finding, Said
from silent_failures import BEGIN, END, Row, as_markdown, as_text, row_of, summary, with_block


def found(is_wrong, is_right):
    answer = Answer("anyport verify m.onnx", "MismatchError: a | b", is_right, 1.26)
    return Finding(Said("exported", 0.5), "off by 2", is_wrong, answer)


def row(name, is_wrong, is_right):
    finding = found(is_wrong, is_right)
    return Row(Case(name, "a title", lambda folder: finding), finding.outcome, finding)


def printed(call):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        try:
            call()
        except (SystemExit, ValueError) as err:
            print(f"{{type(err).__name__}} {{err}}")
    return out.getvalue()


def ran(*words, cases=silent_failures.CASES):
    silent_failures.CASES = cases
    sys.argv = ["silent_failures.py", *words]
    return printed(silent_failures.main)


cut_off = silent_case.Printed("anyport", 1, "", "BundleError: 'x' is cut off", 0)
silent_case.run_anyport = lambda *words: cut_off
rows = [row("one", True, True), row("two", True, False), row("three", False, True)]
lacking = Case("four", "a title", lambda folder: found(True, True), needs=("no_such_package",))
broken = Case("five", "a title", lambda folder: 1 / 0)
rows.append(row_of(lacking, None))
readmes = {{"none": "x", "reversed": f"{{END}} {{BEGIN}}", "twice": f"{{BEGIN}} {{BEGIN}} {{END}}"}}
block = with_block(f"before\\n{{BEGIN}}\\nold\\n{{END}}\\nafter", "new")
print(json.dumps({{
    "heard": [silent_case.anyport_says(expected=words, code=code).is_right
              for words, code in (("BundleError: 'x'", 1), ("MismatchError: ", 1), ("BundleError: 'x'", 2))],
    "doctests": doctest.testmod(silent_case).failed,
    "unknown": ran("--only", "log-sigmoidd"),
    "partial": ran("--only", "opset", "--write-readme"),
    "outcomes": [row.outcome for row in rows],
    "summary": summary(rows),
    "reason": rows[3].reason,
    "table": as_markdown(rows, "machine: x", 61),
    "codes": {{row.case.name: ran(cases=(row.case,)).splitlines()[-1] for row in rows[:3]}},
    "broken": ran(cases=(broken,)),
    "block": block.replace(BEGIN, "B").replace(END, "E"),
    "readmes": {{name: printed(lambda: with_block(text, "new")) for name, text in readmes.items()}},
}}))
"""


def run_bench(*words: str) -> subprocess.CompletedProcess[str]:
    own = {"PYTHONPATH": str(tree.PACKAGE.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(BENCH / "silent_failures.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | own,
    )


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    printed: dict[str, Any] = json.loads(tree.run_python(_PARTS.format(bench=str(BENCH))).splitlines()[-1])
    return printed


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    done = run_bench("--json", *(word for name in ROWS for word in ("--only", name)))
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return {row["name"]: row for row in found["rows"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "truth", "said"),
    [
        ("column-scale", "off by ", "onnxslim different: "),
        (
            "damaged-weights",
            "off by ",
            "'parts/network/fp32/weights.safetensors' is not the file that was sealed",
        ),
        ("log-sigmoid", "-inf where PyTorch has ", "output 'y' is -inf where the reference is "),
        ("softmax-opset", "off by ", "output 'y' is off by "),
    ],
)
def test_a_silent_failure_is_real_and_anyport_names_it(
    rows: dict[str, Any], name: str, truth: str, said: str
) -> None:
    row = rows[name]
    if row["outcome"] == "skipped":
        pytest.skip(row["reason"])
    assert row["outcome"] == "caught"
    assert "warned" not in row["tool"]["text"]
    assert row["truth"].startswith(truth)
    assert said in row["anyport"]["text"]
    assert row["anyport"]["command"].startswith("anyport ")


def test_the_parts_of_the_script_do_what_their_examples_say(parts: dict[str, Any]) -> None:
    assert parts["doctests"] == 0


def test_only_the_expected_error_is_right(parts: dict[str, Any]) -> None:
    assert parts["heard"] == [True, False, False]


def test_outcomes_follow_from_what_is_wrong_and_what_is_said(parts: dict[str, Any]) -> None:
    assert parts["outcomes"] == ["caught", "MISSED", "not reproduced", "skipped"]
    assert parts["summary"] == "4 rows: 1 caught, 1 MISSED, 1 not reproduced, 1 skipped"
    assert parts["reason"] == "no_such_package not installed"


def test_the_table_marks_a_miss_and_leaves_out_what_is_not_wrong_any_more(parts: dict[str, Any]) -> None:
    table = parts["table"]
    assert "| `one`: a title | exported | off by 2 | MismatchError: a \\| b | 1.3 s |" in table
    assert "| `two`: a title | exported | off by 2 | MISSED: MismatchError: a \\| b | 1.3 s |" in table
    assert "| `three`" not in table
    assert "`three`, a title: not reproduced: off by 2." in table
    assert "`four`, a title: skipped: no_such_package not installed." in table


def test_a_miss_ends_with_code_1(parts: dict[str, Any]) -> None:
    assert parts["codes"] == {"one": "SystemExit 0", "two": "SystemExit 1", "three": "SystemExit 0"}


def test_a_row_that_breaks_is_shown_and_ends_with_code_1(parts: dict[str, Any]) -> None:
    assert "five [broken]  a title\n  ZeroDivisionError: division by zero" in parts["broken"]
    assert "1 rows: 1 broken" in parts["broken"]
    assert parts["broken"].endswith("SystemExit 1\n")


def test_the_block_of_the_readme_is_replaced_and_nothing_else(parts: dict[str, Any]) -> None:
    assert parts["block"] == "before\nB\nnew\nE\nafter"


@pytest.mark.parametrize("name", ["none", "reversed", "twice"])
def test_a_readme_without_its_markers_is_refused(parts: dict[str, Any], name: str) -> None:
    assert parts["readmes"][name].startswith("ValueError the README must have '<!-- begin: python bench/")


def test_the_readme_has_the_markers() -> None:
    readme = (tree.ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("<!-- begin: python bench/silent_failures.py --write-readme -->") == 1
    assert readme.count("<!-- end: silent failures -->") == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("unknown", "no row is called log-sigmoidd; --list names them"),
        ("partial", "--write-readme writes the whole table: leave --only out"),
    ],
)
def test_wrong_words_are_refused(parts: dict[str, Any], name: str, told: str) -> None:
    assert told in parts[name]
    assert parts[name].endswith("SystemExit 2\n")
