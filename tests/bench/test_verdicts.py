"""A few rows of each table of `bench/verdicts.py`, and its exit codes; the bench itself has all rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

import pytest

from tests.house import tree

BENCH: Final = tree.ROOT / "bench"
ROWS: Final = (
    "bias-only",
    "epsilon-vision",
    "gelu-vision",
    "padded-20",
    "padded-stock",
    "swap-norms",
    "unused-row",
    "vit",
)
_WITH_A_WRONG_ROW: Final = """
import sys
sys.path.insert(0, {bench!r})
sys.argv = ["verdicts.py"]
import verdicts
from trials import Row
row = Row("vit", {{"network": "vit"}}, "FAIL where PASS is right")
verdicts.GROUPS = (verdicts.Group("clean", "each must PASS", lambda folder, is_wanted: iter([row])),)
try:
    verdicts.main()
except SystemExit as err:
    print("exit code", err.code)
"""


def run_bench(*words: str) -> subprocess.CompletedProcess[str]:
    own = {"PYTHONPATH": str(tree.PACKAGE.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(BENCH / "verdicts.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | own,
    )


@pytest.fixture(scope="module")
def tables() -> dict[str, dict[str, dict[str, Any]]]:
    done = run_bench("--json", *(word for name in ROWS for word in ("--only", name)))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    return {group: {row["name"]: row["cells"] for row in rows} for group, rows in found["tables"].items()}


def test_a_clean_export_is_no_false_alarm(tables: dict[str, Any]) -> None:
    cells = tables["clean"]["vit"]
    assert cells["verdict"] == "PASS"
    assert 0.0 < float(cells["worst"]) < 8.0


@pytest.mark.parametrize(
    ("fault", "values", "weights"),
    [
        ("epsilon-vision", "FAIL", "pass"),
        ("gelu-vision", "FAIL", "pass"),
        ("swap-norms", "FAIL", "FAIL"),
        ("unused-row", "pass", "FAIL"),
    ],
)
def test_a_planted_fault_is_caught_by_the_leg_that_can_see_it(
    tables: dict[str, Any], fault: str, values: str, weights: str
) -> None:
    cells = tables["faults"][fault]
    assert cells["values"].startswith(values)
    assert cells["weights"] == weights


def test_the_message_names_what_was_damaged(tables: dict[str, Any]) -> None:
    faults = tables["faults"]
    assert faults["epsilon-vision"]["message"].startswith("output 'logits' is off by ")
    assert faults["unused-row"]["message"].startswith(
        "weight 'embeddings.word_embeddings.weight' is changed: 32 of 160000 elements differ, the first at "
    )


def test_a_net_that_answers_the_same_to_every_input_proves_nothing(tables: dict[str, Any]) -> None:
    cells = tables["silent"]["bias-only"]
    assert (cells["verdict"], cells["power"]) == ("INCONCLUSIVE", "inconclusive")
    assert cells["values"].startswith("pass")  # which is why values alone are no verdict


def test_the_default_cases_catch_the_fully_padded_row(tables: dict[str, Any]) -> None:
    stock, own = tables["padded"]["padded-stock"], tables["padded"]["padded-20"]
    assert stock["cases that fail"] == "mask of zeros, mask with a fully padded row"
    assert (stock["verdict"], own["verdict"]) == ("FAIL", "PASS")


def test_a_row_that_is_not_as_it_must_be_is_marked_and_ends_with_code_1() -> None:
    printed = tree.run_python(_WITH_A_WRONG_ROW.format(bench=str(BENCH)))
    assert "!! vit" in printed
    assert "!! vit: FAIL where PASS is right\n0 of 1 rows are as they must be" in printed
    assert printed.endswith("exit code 1")


def test_an_unknown_name_is_refused() -> None:
    done = run_bench("--only", "vitt")
    assert done.returncode == 2
    assert "no group and no row is called vitt" in done.stderr
