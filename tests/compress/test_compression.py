from __future__ import annotations

import json
from dataclasses import replace

from anyport.compress.compression import Compression, Trial
from anyport.compress.rewrite import KeptFloat
from anyport.verify import UserMetric

EVALUATION = UserMetric("evaluate.py:accuracy", lambda _run: 0.0, 0.1).compare(0.989, 0.989)
FOUND = Compression(
    kept="int8-static:u8s8",
    optimization="all",
    size_before_bytes=3_600_000,
    size_bytes=1_000_000,
    ratio=1.3,
    baseline="extended",
    is_faster=True,
    evaluation=EVALUATION,
    operators={"Conv": 3},
    kept_float=(KeptFloat("head", "MatMul", "both operands are computed"),),
    trials=(
        Trial("int8-static:u8s8", "kept", 30, 1_000_000, 1.3, EVALUATION.line()),
        Trial("int8-dynamic:u8s8", "skipped", reason="it needs samples"),
    ),
)


def test_the_summary_is_one_line() -> None:
    assert FOUND.summary() == ("int8-static:u8s8   3.60x smaller, 1.30x faster   accuracy 98.9 % -> 98.9 %")
    slow = replace(FOUND, ratio=0.8, is_faster=False)
    assert slow.summary().startswith("int8-static:u8s8   3.60x smaller, NOT FASTER (0.80x), kept for size   ")


def test_the_table_shows_every_trial_and_what_stayed_float() -> None:
    lines = str(FOUND).splitlines()
    assert lines[0].split() == ["method", "status", "nodes", "size", "ratio", "metric", "reason"]
    assert lines[2].split() == ["int8-dynamic:u8s8", "skipped", "-", "-", "-", "-", "it", "needs", "samples"]
    assert lines[3] == "stayed float: 1 MatMul: both operands are computed"
    assert len(lines) == 4


def test_json_is_plain() -> None:
    record = json.loads(json.dumps(FOUND.to_json()))
    assert (record["kept"], record["baseline"], record["evaluation"]["status"]) == (
        "int8-static:u8s8",
        "extended",
        EVALUATION.status.value,
    )
    assert [trial["status"] for trial in record["trials"]] == ["kept", "skipped"]
