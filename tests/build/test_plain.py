from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch

from anyport.build import VerifyRequest, export_plain, verify_plain
from anyport.errors import MismatchError, UsageError
from anyport.verify import Status
from tests.build import zoo
from tests.build.building import QUICK, ZOO, plan_for, silent

if TYPE_CHECKING:
    from pathlib import Path


def request(path: Path, against: str, **words: Any) -> VerifyRequest:
    tables = {"inputs": {}, "dims": {}, "arguments": {}} | words
    return VerifyRequest(path=path, against=against, settings=QUICK, **tables)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "m.onnx"
    result = export_plain(plan_for("masked_encoder", path), silent)
    assert result.files == (path,)
    assert result.verdict.status is Status.PASS
    return path


def test_a_small_model_is_one_file_and_nothing_else_is_left(exported: Path) -> None:
    assert [p.name for p in exported.parent.iterdir()] == ["m.onnx"]
    onnx.checker.check_model(str(exported))


def test_an_exported_file_knows_its_own_signature(exported: Path) -> None:
    verdict = verify_plain(request(exported, f"{ZOO}/zoo.py:masked_encoder"))
    assert verdict.status is Status.PASS
    sizes = {case.sizes["sequence"] for case in verdict.plan.cases}
    assert {1, 32} <= sizes


def test_a_file_is_verified_against_another_file(exported: Path, tmp_path: Path) -> None:
    assert verify_plain(request(exported, str(exported))).status is Status.PASS
    model = onnx.load(str(exported))
    weight = next(i for i in model.graph.initializer if i.name == "query.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[3, 5] = 0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, str(tmp_path / "bad.onnx"))
    verdict = verify_plain(request(tmp_path / "bad.onnx", str(exported)))
    assert verdict.leg("weights").status is Status.FAIL
    assert "query.weight" in verdict.leg("weights").line


def test_a_stock_export_of_a_masked_encoder_is_caught_by_the_default_cases(tmp_path: Path) -> None:
    """Torch's own export answers otherwise on a fully padded row, and says nothing of it."""
    model = zoo.masked_encoder()
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    example = (torch.randint(0, 40, (3, 5)), torch.ones(3, 5, dtype=torch.int64))
    path = tmp_path / "stock.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            example,
            str(path),
            dynamic_shapes=(sizes, sizes),
            opset_version=20,
            verbose=False,
            input_names=["input_ids", "attention_mask"],
            output_names=["encoded"],
            external_data=False,
        )
    words = {"input_ids": "int64[batch, sequence] 0..39", "attention_mask": "int64[batch, sequence] 0..1"}
    verdict = verify_plain(request(path, f"{ZOO}/zoo.py:masked_encoder", inputs=words))
    failed = {finding.case for finding in verdict.findings if not finding.passed}
    assert failed == {"mask with a fully padded row", "mask of zeros"}
    with pytest.raises(MismatchError, match=r"output 'encoded' is off by"):
        verdict.raise_if_bad()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            {"inputs": {"ids": "int64[n] 0..3"}},
            "--input 'ids' is no input of m.onnx: attention_mask, input_ids",
        ),
        ({"dims": {"height": "1..3"}}, "--dim 'height' is no axis of m.onnx: batch, sequence"),
    ],
)
def test_words_that_do_not_fit_the_file_are_refused(exported: Path, words: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        verify_plain(request(exported, f"{ZOO}/zoo.py:masked_encoder", **words))
    assert caught.value.what == text


def test_the_signature_in_the_file_is_readable_by_anyone(exported: Path) -> None:
    model = onnx.load(str(exported))
    words = json.loads(next(e.value for e in model.metadata_props if e.key == "anyport.signature"))
    assert words["dims"] == {"batch": "1..8", "sequence": "1..32"}


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MismatchError):
        export_plain(plan_for("deaf", tmp_path / "m.onnx"), silent)
    assert list(tmp_path.iterdir()) == []
    allowed = replace(QUICK, allow=frozenset({"inconclusive"}))
    assert export_plain(plan_for("deaf", tmp_path / "m.onnx", allowed), silent).files[0].exists()


def test_a_foreign_file_with_names_of_its_own_is_matched_by_order(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            zoo.scores_and_choice(),
            (torch.randn(3, 12),),
            str(path),
            dynamic_shapes={"features": {0: torch.export.Dim("batch")}},
            verbose=False,
            external_data=False,
        )
    verdict = verify_plain(request(path, f"{ZOO}/zoo.py:scores_and_choice", dims={"batch": "1..32"}))
    assert verdict.status is Status.PASS, verdict.table()
