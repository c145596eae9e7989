from __future__ import annotations

import json
from dataclasses import replace

from anyport.graph.simplification import Attempt, Simplification

NONE = Attempt("none", "", "equal", 49, 49, 46_800_000, 80, 80, 62, 62, 0.0, 1.0, "all", "onnxslim is faster")
SLIM = Attempt("onnxslim", "0.1.98", "kept", 49, 41, 46_700_000, 80, 75, 62, 60, 2.4e-7, 1.04, "basic")
SIM = Attempt("onnxsim", "0.8.1", "failed", 49, reason="crashed: SIGSEGV")
SAME = Attempt("onnxscript", "0.7.2", "unchanged", 49, 49)
FOUND = Simplification("onnxslim", "basic", True, {"Conv": 20, "Relu": 21}, (NONE, SAME, SIM, SLIM))

TABLE = """\
tool        version  status     nodes     size     names     weights   difference  ratio  level  reason
none        -        equal      49 -> 49  46.8 MB  80 of 80  62 of 62  0.0e+00     1.00x  all    onnxslim is faster
onnxscript  0.7.2    unchanged  49 -> 49  -        -         -         -           -      -
onnxsim     0.8.1    failed     -         -        -         -         -           -      -      crashed: SIGSEGV
onnxslim    0.1.98   kept       49 -> 41  46.7 MB  75 of 80  60 of 62  2.4e-07     1.04x  basic"""  # noqa: E501


def test_it_is_a_table() -> None:
    assert str(FOUND) == TABLE


def test_it_is_one_line() -> None:
    start = "kept onnxslim   1.04x, 49 -> 41 nodes   level basic   "
    assert FOUND.summary() == f"{start}4 tried, 2 proven equal, 1 unchanged"
    assert replace(FOUND, attempts=(NONE, SIM, SLIM)).summary() == f"{start}3 tried, 2 proven equal"
    kept = replace(NONE, status="kept", ratio=None, reason="")
    nothing = Simplification("none", "all", False, {}, (kept, SIM))
    assert nothing.summary() == "kept none   not timed, 49 -> 49 nodes   level all   2 tried, NOTHING PROVEN"


def test_it_is_json() -> None:
    record = json.loads(json.dumps(FOUND.to_json()))
    assert (record["kept"], record["optimization"], record["proven"]) == ("onnxslim", "basic", True)
    assert record["attempts"][2] == record["attempts"][2] | {"status": "failed", "ratio": None}
    assert FOUND.kept_attempt is SLIM
