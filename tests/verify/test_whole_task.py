"""The whole task's verdict: what passes, what does not, and what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.bundle import open_bundle
from anyport.errors import BundleError, MismatchError, SessionError
from anyport.task.rehearsals import TaskAnswer, TaskRequest
from anyport.verify import Status, whole_task
from anyport.verify.likeness import Likeness
from anyport.verify.whole_task import (
    LEAST_DB,
    WHOLE_TASK,
    Rehearsed,
    judge_task,
    proof_of_task,
    recorded_answers,
    verify_task,
)
from tests.task import test_edit
from tests.verify.edit_bundles import edit_bundle, open_part

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyport.verify import Verdict

Patch = pytest.MonkeyPatch


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((16, 24, 3), np.float32)


def request(name: str, noise: float = 0.0) -> TaskRequest:
    return TaskRequest(name, {}, [], {"latents": np.full(3, noise, np.float32)})


STATES = np.arange(1, 5, dtype=np.float32)
RECORDED = [
    (request("one"), TaskAnswer(picture(0), {"first": STATES, "second": STATES})),
    (request("two"), TaskAnswer(picture(1))),
]


def judged(
    patch: Patch, change: Callable[[TaskRequest, TaskAnswer], TaskAnswer], recorded: Any = RECORDED
) -> Verdict:
    answers = {one.name: answer for one, answer in recorded}
    patch.setattr(whole_task, "rehearse", lambda _, asked: change(asked, answers[asked.name]))
    graphs: Any = None
    return judge_task(recorded, graphs, "fp32", "anyport verify m.port")


def test_equal_answers_pass(monkeypatch: Patch) -> None:
    verdict = judged(monkeypatch, lambda _, answer: answer)
    assert verdict.status is Status.PASS
    assert verdict.summary() == (
        "2 cases, pictures 0; height 16; width 24   worst picture equal, 115 needed; SSIM 1.0000000, "
        "uint8 off by 0, between the parts equal (first)   PASS"
    )
    assert "ok    equal, SSIM 1.0000000, uint8 off by 0 at most   one" in verdict.table()
    record = verdict.to_json()
    assert (record["part"], record["variant"], record["worst_ratio"]) == (WHOLE_TASK, "fp32", None)
    assert record["evaluation"]["cases"][0]["between_db"] == {"first": "inf", "second": "inf"}
    verdict.raise_if_bad()


def test_the_limit_is_115_db(monkeypatch: Patch) -> None:
    def off(decibels: float) -> Verdict:
        error = np.float32(10 ** (-decibels / 20))
        return judged(monkeypatch, lambda _, answer: replace(answer, picture=answer.picture + error))

    assert off(LEAST_DB + 1).leg("values").status is Status.PASS
    bad = off(LEAST_DB - 1)
    assert bad.status is Status.FAIL
    with pytest.raises(MismatchError) as caught:
        bad.raise_if_bad()
    assert caught.value.what.startswith("case 'one': 114.")
    assert caught.value.what.endswith("; 115 dB and 1 needed")
    assert caught.value.where == "part (whole task), variant fp32"


def test_a_value_may_be_off_by_one() -> None:
    for levels, passes in ((0, True), (1, True), (2, False)):
        assert Rehearsed("x", Likeness(130.0, 1.0, levels), {}).passed is passes


def test_a_part_that_answers_otherwise_is_named(monkeypatch: Patch) -> None:
    def change(_: TaskRequest, answer: TaskAnswer) -> TaskAnswer:
        return replace(answer, between={**answer.between, "second": STATES * np.float32(1.001)})

    leg = judged(monkeypatch, change).leg("between")
    assert (leg.status, leg.line) == (
        Status.FAIL,
        "the part 'second' answers otherwise in case 'one': 60.0 dB, 80 needed",
    )
    lost = judged(monkeypatch, lambda _, answer: replace(answer, between={"first": STATES[:2]}))
    assert lost.leg("between").line.startswith("the part 'first' answers otherwise in case 'one': -inf dB")


def test_a_graph_that_does_not_run_fails(monkeypatch: Patch) -> None:
    def fail(asked: TaskRequest, answer: TaskAnswer) -> TaskAnswer:
        if asked.name == "two":
            raise SessionError("the 'velocity' is not finite")
        return answer

    verdict = judged(monkeypatch, fail)
    assert verdict.status is Status.FAIL
    assert verdict.leg("values").line == "case 'two': does not run: the 'velocity' is not finite"
    small = judged(monkeypatch, lambda _, answer: replace(answer, picture=answer.picture[:8]))
    assert small.leg("values").line == "case 'one': is [8, 24, 3], not [16, 24, 3]"


def test_answers_that_are_all_alike_prove_little(monkeypatch: Patch) -> None:
    alike = [(request("one"), TaskAnswer(picture(0))), (request("two"), TaskAnswer(picture(0)))]
    verdict = judged(monkeypatch, lambda _, answer: answer, alike)
    assert verdict.status is Status.INCONCLUSIVE
    line = "other words or pictures come to equal ('one', 'two'): the model hardly sees them"
    assert verdict.leg("power").line == line
    assert verdict.leg("between").status is Status.NOT_APPLICABLE
    other = [alike[0], (request("two", 1.0), TaskAnswer(picture(1)))]
    line = judged(monkeypatch, lambda _, answer: answer, other).leg("power").line
    assert line == "no two cases differ in words or pictures alone"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (TaskAnswer(picture(0) * np.nan), "own answer to 'one' is not finite: picture"),
        (TaskAnswer(picture(0), {"first": STATES * np.inf}), "own answer to 'one' is not finite: first"),
        (TaskAnswer(picture(0) + 1), "the recorded picture of 'one' does not lie between 0 and 1"),
    ],
)
def test_an_original_that_is_no_picture_is_refused(monkeypatch: Patch, answer: TaskAnswer, text: str) -> None:
    with pytest.raises(MismatchError) as caught:
        judged(monkeypatch, lambda _, same: same, [(request("one"), answer)])
    assert text in caught.value.what


def test_a_proof_is_what_was_recorded() -> None:
    proof, arrays = proof_of_task("edit", RECORDED)
    back = recorded_answers(proof, arrays)
    assert [asked.name for asked, _ in back] == ["one", "two"]
    for (asked, answer), (other, same) in zip(RECORDED, back, strict=True):
        assert np.array_equal(asked.arrays["latents"], other.arrays["latents"])
        assert np.array_equal(answer.picture, same.picture)
        assert answer.between.keys() == same.between.keys()


def verified(folder: Path) -> Verdict:
    with open_bundle(folder) as bundle:
        verdict = verify_task(bundle, open_part)
    assert verdict is not None
    return verdict


def test_a_bundle_is_replayed(tmp_path: Path, monkeypatch: Patch) -> None:
    folder = edit_bundle(tmp_path)
    verdict = verified(folder)
    assert verdict.status is Status.PASS, verdict.table()
    assert "anyport verify edit.port --variant fp32" in verdict.part.command
    test_edit.MISTAKES["guidance x 1.01"](monkeypatch)
    assert verified(folder).leg("values").status is Status.FAIL


def test_a_picture_that_was_exchanged_is_refused_or_fails(tmp_path: Path) -> None:
    folder = edit_bundle(tmp_path)
    with open_bundle(folder) as bundle:
        content = bundle.file("proof/task.safetensors").read_bytes()
    (folder / "proof" / "task.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError):
        verified(folder)
