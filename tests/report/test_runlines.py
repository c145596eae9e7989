"""Every line that is judged from runs: a case that fails it, and one that it cannot judge."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from anyport.bundle import PartEntry
from anyport.cases import Padding
from anyport.errors import SessionError
from anyport.report import CheckSettings, Mark
from anyport.report.runlines import boundaries, values
from anyport.runtime import SessionOptions, open_session
from anyport.verify import Leg, Status
from tests.report.listing import Subject, Wrapped, line, listed
from tests.report.test_graphlines import static

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anyport.bundle import GraphFile


def opener(change: Callable[[Any, dict[str, np.ndarray]], Any]) -> Callable[[GraphFile, SessionOptions], Any]:
    return lambda graph, options: Wrapped(open_session(graph, options), change)


def test_wrong_answers_fail(tmp_path: Path) -> None:
    found = line("mse < 1e-5, max abs", tmp_path, Subject(answer_off=1.0))
    assert found.mark is Mark.FAIL
    assert "off by 1" in found.evidence
    assert "5 of 5 comparisons fail" in found.evidence


def test_a_large_error_fails_even_where_the_proof_passes() -> None:
    leg = Leg("values", Status.PASS, "worst 1x of PyTorch's own rounding")
    numbers = SimpleNamespace(mse=2e-5, max_abs=0.01)
    findings = (SimpleNamespace(numbers=numbers, passed=True),)
    verdict = SimpleNamespace(status=Status.PASS, leg=lambda _: leg, legs=(leg,), findings=findings)
    found = values(SimpleNamespace(verdict=verdict, is_lossy=False))  # type: ignore[arg-type]
    assert (found.mark, found.evidence) == (
        Mark.FAIL,
        (
            "mse 2e-05, max abs 0.01 over 1 comparisons: mse must be below 1e-05, "
            "though the proof passes (worst 1x of PyTorch's own rounding)"
        ),
    )
    found = values(SimpleNamespace(verdict=verdict, is_lossy=True))  # type: ignore[arg-type]
    assert found.mark is Mark.NOT_APPLICABLE
    numbers.mse = 9e-6
    found = values(SimpleNamespace(verdict=verdict, is_lossy=False))  # type: ignore[arg-type]
    assert found.mark is Mark.PASS


def test_a_bundle_without_proof_is_untested(tmp_path: Path) -> None:
    found = line("mse < 1e-5, max abs", tmp_path, Subject(sizes=()))
    assert (found.mark, found.evidence) == (Mark.UNTESTED, "no case was run")


def test_exact_answers_pass_with_their_numbers(tmp_path: Path) -> None:
    found = line("mse < 1e-5, max abs", tmp_path, Subject())
    assert found.mark is Mark.PASS
    assert found.evidence.startswith("mse 0, max abs 0 over 5 comparisons; worst 0x of ")


def refuses_three(feeds: Mapping[str, np.ndarray], _outputs: dict[str, np.ndarray]) -> None:
    if feeds["pixel_values"].shape[0] == 3:
        raise SessionError("three are too many")


def not_finite(feeds: Mapping[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
    if feeds["pixel_values"].shape[0] == 3:
        outputs["logits"] = outputs["logits"] + np.float32("inf")


def one_row(feeds: Mapping[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
    if feeds["pixel_values"].shape[0] == 3:
        outputs["logits"] = outputs["logits"][:1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (refuses_three, "batch=3: three are too many (1 sizes fail)"),
        (not_finite, "batch=3: differs from PyTorch (1 sizes fail)"),
        (one_row, "batch=3: differs from PyTorch (1 sizes fail)"),
    ],
)
def test_a_batch_that_breaks_fails(tmp_path: Path, change: Callable[..., Any], words: str) -> None:
    found = line("batch sizes", tmp_path, Subject(), open_graph=opener(change))
    assert found.mark is Mark.FAIL
    assert found.evidence in {words, words.replace("three are too many", "differs from PyTorch")}


def test_one_batch_size_is_untested_and_none_not_applicable(tmp_path: Path) -> None:
    assert line("batch sizes", tmp_path, Subject(sizes=(3, 3, 3))).mark is Mark.UNTESTED
    (tmp_path / "static").mkdir()
    assert line("batch sizes", tmp_path / "static", static(2)).mark is Mark.NOT_APPLICABLE


def breaks_at_one(feeds: Mapping[str, np.ndarray], _outputs: dict[str, np.ndarray]) -> None:
    if feeds["pixel_values"].shape[0] == 1:
        raise SessionError("one is too few")


def test_a_boundary_that_breaks_fails(tmp_path: Path) -> None:
    found = line("boundary inputs", tmp_path, Subject(), open_graph=opener(breaks_at_one))
    assert found.mark is Mark.FAIL
    assert found.evidence.startswith("batch=1, seed 0: ")


def test_a_picture_that_breaks_fails(tmp_path: Path) -> None:
    nan = replace(Subject().tensors, weights={"ten": np.array([np.nan], np.float32)})
    found = line("boundary inputs", tmp_path, Subject(tensors=nan, sizes=()))
    assert found.mark is Mark.FAIL
    assert "a picture of 1 x 1: the model's scores for" in found.evidence


def test_a_boundary_that_the_proof_lacks_is_untested(tmp_path: Path) -> None:
    found = line("boundary inputs", tmp_path, Subject(sizes=(3, 1, 2)))
    assert (found.mark, found.evidence) == (Mark.UNTESTED, "the proof lacks batch=1")


def test_a_mask_needs_a_row_that_is_all_padding() -> None:
    part = PartEntry(
        {"ids": "int64[batch, sequence] 0..9", "mask": "int64[batch, sequence] 0..1"},
        {"states": "float32[batch, 4]"},
        {"batch": "1..8", "sequence": "1..16"},
    )

    def with_mask(fill: Padding) -> Any:
        fills = {"ids": fill, "mask": fill}
        case = SimpleNamespace(name="least", kind="boundary", sizes={"batch": 1, "sequence": 1}, fills=fills)
        runs = SimpleNamespace(cases=(SimpleNamespace(case=case, problem=""),), edges=())
        verdict = SimpleNamespace(findings=())
        return SimpleNamespace(verdict=verdict, runs=runs, graph=SimpleNamespace(part=part))

    found = boundaries(with_mask(Padding(1)))
    assert (found.mark, found.evidence) == (
        Mark.UNTESTED,
        "the proof lacks a row of 'mask' that is all padding",
    )
    assert boundaries(with_mask(Padding(1, empty_row=True))).mark is Mark.PASS


def test_what_has_no_boundary_is_not_applicable(tmp_path: Path) -> None:
    assert line("boundary inputs", tmp_path, static(2)).mark is Mark.NOT_APPLICABLE


def test_a_session_that_holds_memory_fails(tmp_path: Path) -> None:
    held: list[np.ndarray] = []

    def leak(_feeds: object, _outputs: object) -> None:
        held.append(np.ones(200_000, np.uint8))

    found = line("no leak", tmp_path, Subject(), open_graph=opener(leak))
    held.clear()
    assert found.mark is Mark.FAIL
    assert "a run that no file backs and nobody gives back" in found.evidence


def test_too_few_runs_show_no_leak(tmp_path: Path) -> None:
    found = line("no leak", tmp_path, Subject(), settings=CheckSettings(n_runs=20))
    assert found.mark is Mark.UNTESTED
    assert found.evidence.endswith("50 are needed")


def placed(**n_nodes: int) -> Callable[[GraphFile, SessionOptions], Any]:
    def opens(graph: GraphFile, options: SessionOptions) -> Any:
        session = Wrapped(open_session(graph, replace(options, provider="cpu")), lambda *_: None)
        session.nodes_by_provider = {f"{name}ExecutionProvider": n for name, n in n_nodes.items()}  # type: ignore[attr-defined]
        return session

    return opens


CUDA = CheckSettings(n_runs=60, session=SessionOptions("cuda"))


@pytest.mark.parametrize(
    ("n_nodes", "mark", "words"),
    [
        (
            {"CUDA": 0, "CPU": 40},
            Mark.FAIL,
            "'cuda' was asked for and computes nothing: 40 on CPUExecutionProvider",
        ),
        (
            {"CUDA": 10, "CPU": 30},
            Mark.FAIL,
            "'cuda' computes 10 of 40 nodes: 10 on CUDAExecutionProvider, 30 on CPUExecutionProvider",
        ),
        ({"CUDA": 38, "CPU": 2}, Mark.PASS, "'cuda' computes 38 of 40 nodes"),
        ({}, Mark.UNTESTED, "this runtime does not tell who computes which node"),
    ],
)
def test_a_provider_that_falls_back_fails(
    tmp_path: Path, n_nodes: dict[str, int], mark: Mark, words: str
) -> None:
    found = line("provider really used", tmp_path, Subject(), settings=CUDA, open_graph=placed(**n_nodes))
    assert found.mark is mark
    assert found.evidence.startswith(words)


def test_a_provider_that_is_not_there_fails_its_line_alone(tmp_path: Path) -> None:
    found = line("provider really used", tmp_path, Subject(), settings=CUDA)
    assert found.mark is Mark.FAIL
    assert found.evidence.startswith("the provider 'cuda' is not in this onnxruntime")


def limited(**words: Any) -> CheckSettings:
    return CheckSettings(n_runs=60, session=SessionOptions(**words))


def test_limits_that_are_not_said_are_untested(tmp_path: Path) -> None:
    found = line("threads and memory limited", tmp_path, Subject(), settings=limited(n_threads=1))
    assert (found.mark, found.do) == (Mark.UNTESTED, "add --max-memory 512MB, say")


@pytest.mark.parametrize(
    ("words", "evidence"),
    [
        ({"n_threads": 1, "memory_limit_bytes": 100}, "the memory limit is 100 bytes"),
        (
            {"n_threads": (os.cpu_count() or 1) + 1, "memory_limit_bytes": 64 << 20},
            f"this machine has {os.cpu_count()} cores",
        ),
    ],
)
def test_limits_that_do_not_hold_fail(tmp_path: Path, words: dict[str, int], evidence: str) -> None:
    found = line("threads and memory limited", tmp_path, Subject(), settings=limited(**words))
    assert found.mark is Mark.FAIL
    assert found.evidence.endswith(evidence)


def test_a_case_that_needs_more_than_the_limit_fails(tmp_path: Path) -> None:
    def full(feeds: Mapping[str, np.ndarray], _outputs: object) -> None:
        if feeds["pixel_values"].shape[0] == 3:
            raise SessionError("the run needs more than the memory limit of 64.0 MB")

    settings = limited(n_threads=1, memory_limit_bytes=64 << 20)
    found = line(
        "threads and memory limited", tmp_path, Subject(), settings=settings, open_graph=opener(full)
    )
    assert found.mark is Mark.FAIL
    assert found.evidence.startswith("batch=3, seed 1: the run needs more than the memory limit")


def test_answers_of_which_a_sample_is_recorded_are_held_against_it(tmp_path: Path) -> None:
    subject = Subject(n_sampled=3)
    found = {one.name: one for one in listed(tmp_path, subject).lines}
    for name in ("batch sizes", "boundary inputs", "mse < 1e-5, max abs"):
        assert found[name].mark is Mark.PASS, found[name]
