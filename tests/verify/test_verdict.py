"""The words for a verdict."""

from __future__ import annotations

import json

import pytest

from anyport.errors import MismatchError
from anyport.verify import Leg, Status, Verdict, compare
from tests.verify.fakes import PART, FunctionSession, TwinReference, encoder, good, plan

PASSING = compare(TwinReference(), FunctionSession(good), plan(), PART)
FAILING = compare(TwinReference(), FunctionSession(lambda feeds: encoder(feeds, eps=1e-2)), plan(), PART)
FOUND = Leg("weights", Status.PASS, "22 of 22 weights found")
CHANGED = Leg(
    "weights", Status.FAIL, "weight 'fc.weight' is changed: 1 of 6 elements differ", do="export it again"
)


def with_status(*statuses: Status) -> Verdict:
    names = ("values", "power", "weights")
    legs = tuple(Leg(name, status, f"about {name}") for name, status in zip(names, statuses, strict=True))
    return Verdict(PART, plan(), legs, ())


P, F, N, X = Status.PASS, Status.FAIL, Status.INCONCLUSIVE, Status.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ((P, P, P), P), ((P, P, X), P), ((F, P, P), F), ((P, N, P), N), ((P, P, F), F), ((P, N, F), F),
        ((F, N, X), F), ((X, X, P), P), ((X, X, X), N), ((P, P, N), N),
    ],
)  # fmt: skip
def test_status(statuses: tuple[Status, Status, Status], status: Status) -> None:
    verdict = with_status(*statuses)
    assert verdict.status is status
    if status is P:
        verdict.raise_if_bad()
    else:
        with pytest.raises(MismatchError):
            verdict.raise_if_bad()


def test_inconclusive_is_allowed_by_name_and_failure_never() -> None:
    with_status(P, N, P).raise_if_bad(allow_inconclusive=True)
    with pytest.raises(MismatchError, match=r"^about values"):
        with_status(F, N, P).raise_if_bad(allow_inconclusive=True)


def test_the_summary_is_one_line() -> None:
    ratio = f"{max(found.ratio_max for found in PASSING.findings):.2g}"
    assert PASSING.with_leg(FOUND).summary() == (
        "29 cases, batch 1, 2, 3, 4, 5, 8; sequence 1, 9, 10, 12, 17, 32   "
        f"worst {ratio}x of PyTorch's own rounding, 22 of 22 weights found   PASS"
    )
    assert FAILING.summary().endswith(" comparisons fail)   FAIL")


def test_the_error_of_changed_weights() -> None:
    with pytest.raises(MismatchError) as err:
        PASSING.with_leg(CHANGED).raise_if_bad(allow_inconclusive=True)
    assert str(err.value) == (
        "weight 'fc.weight' is changed: 1 of 6 elements differ\n"
        "  where: part encoder, variant fp32\n"
        "  do:    export it again"
    )


def test_a_leg_takes_the_place_of_its_name() -> None:
    verdict = PASSING.with_leg(FOUND)
    assert [leg.name for leg in verdict.legs] == ["values", "power", "weights"]
    assert verdict.leg("weights") is FOUND
    assert PASSING.leg("weights").status is Status.NOT_APPLICABLE


@pytest.mark.parametrize("verdict", [PASSING, FAILING, with_status(P, N, X)])
def test_json_is_plain_and_whole(verdict: Verdict) -> None:
    found = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert found["status"] == verdict.status.value
    assert len(found["findings"]) == len(verdict.findings)
    assert [leg["name"] for leg in found["legs"]] == ["values", "power", "weights"]
    assert len(found["cases"]) == 29


def test_the_table_begins_with_the_worst() -> None:
    lines = FAILING.table(n_rows=3).splitlines()
    rows = lines[lines.index(next(line for line in lines if "max abs" in line)) + 1 :]
    assert [row.split()[0] for row in rows[:3]] == ["FAIL"] * 3
    assert rows[-1] == f"… and {len(FAILING.findings) - 3} that used less of what is allowed"
    assert FAILING.worst is not None
    assert FAILING.worst.case in rows[0]
