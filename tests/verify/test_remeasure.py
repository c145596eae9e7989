"""A lossy variant is measured anew, on the machine that asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.bundle import open_bundle
from anyport.errors import MismatchError
from anyport.verify import Status, verify_bundle
from tests.verify.lossy_bundles import lossy_bundle, opener
from tests.verify.lossy_examples import exact, noisy, session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyport.verify import Verdict
    from tests.verify.fakes import FunctionSession


def verdict_of(folder: Path, int8: FunctionSession, variant: str = "int8") -> Verdict:
    with open_bundle(lossy_bundle(folder)) as bundle:
        [verdict] = verify_bundle(bundle, opener(int8), variant=variant)
    return verdict


def test_other_bits_pass(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, noisy(0.03, 0.03))
    verdict.raise_if_bad()
    assert verdict.status is Status.PASS
    assert "over 128 samples, " in verdict.summary()
    assert verdict.summary().startswith("3 cases, batch 1, 3, 8   '")
    assert verdict.leg("values").details[-1] == (
        "3 cases of the exact proof: types, sizes and finiteness of the answers are right"
    )
    assert "times as far apart" in verdict.leg("power").line
    assert verdict.leg("weights").line == "they are rounded on purpose, and every byte is sealed since"
    assert verdict.leg("weights").details[0].startswith("found when the bundle was built: '")
    assert "max abs" not in verdict.table()


def test_the_allowance_of_the_build_is_not_used_up_by_the_build(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, noisy())
    assert verdict.leg("values").details[0].endswith("95 % needed")


def test_a_worse_graph_fails_here(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, noisy(logits=3.0))
    assert verdict.status is Status.FAIL
    with pytest.raises(MismatchError) as err:
        verdict.raise_if_bad()
    assert err.value.what.startswith("'logits' top-1 agreement ")
    assert err.value.where == "part network, variant int8"
    assert err.value.do == "use another variant on this machine: another processor rounds otherwise"


def test_json(tmp_path: Path) -> None:
    record = verdict_of(tmp_path, noisy()).to_json()
    assert (record["status"], record["worst_ratio"], record["findings"]) == ("PASS", None, [])
    assert [one["output"] for one in record["evaluation"]["measures"]] == ["logits", "embedding"]


def test_the_exact_variant_is_judged_by_bits_as_ever(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, noisy(), variant="fp32")
    assert verdict.evaluation is None
    assert [found.passed for found in verdict.findings] == [True] * 6


def only_at(n: int, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> FunctionSession:
    def run(feeds: Any) -> dict[str, np.ndarray]:
        answer = exact(feeds)
        return change(answer) if len(feeds["x"]) == n else answer

    return session(run)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda a: {**a, "logits": a["logits"][:1]},
            "output 'logits' is float32[1, 10] in case 'batch=8', must be float32[8, 10]",
        ),
        (
            lambda a: {**a, "logits": a["logits"] * np.nan},
            "output 'logits' has 80 elements that are NaN or infinite in case 'batch=8'",
        ),
        (lambda a: {"logits": a["logits"]}, "output 'embedding' is missing in case 'batch=8'"),
    ],
)
def test_every_size_of_the_exact_proof_is_tried(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], text: str
) -> None:
    verdict = verdict_of(tmp_path, only_at(8, change))
    assert (verdict.status, verdict.leg("values").line) == (Status.FAIL, text)


def test_a_missing_output_is_no_power(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, session(lambda feeds: {"logits": exact(feeds)["logits"]}))
    assert verdict.leg("power").status is Status.NOT_APPLICABLE
    assert verdict.status is Status.FAIL


def test_sessions_are_closed(tmp_path: Path) -> None:
    closed: list[str] = []
    candidate = noisy()
    candidate.close = lambda: closed.append("closed")  # type: ignore[method-assign]
    verdict_of(tmp_path, candidate)
    assert closed == ["closed"]
