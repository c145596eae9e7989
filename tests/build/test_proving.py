from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from anyport.build.proving import given_cases, read_cases_once, sweep_settings, verify_part
from anyport.errors import InputError
from anyport.graph.capture import capture
from anyport.graph.convert import convert
from anyport.graph.storing import StoreOptions, store
from anyport.source import TorchReference, find_model
from anyport.verify import Status
from tests.build.building import QUICK, plan_for

if TYPE_CHECKING:
    from pathlib import Path


def test_a_wrong_graph_fails_and_the_verdict_names_module_and_line(tmp_path: Path) -> None:
    [part] = find_model(plan_for("masked_encoder", tmp_path / "m.port").request).parts
    captured = capture(part)
    graph = store(convert(captured, part), tmp_path / "model.onnx", StoreOptions("inside"))
    model = onnx.load(str(graph.path))
    [norm] = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    next(a for a in norm.attribute if a.name == "epsilon").f = 1e-2
    onnx.save(model, str(graph.path))
    verdict = verify_part(part, captured, graph.path, TorchReference(part), QUICK)
    assert verdict.status is Status.FAIL
    assert verdict.leg("weights").status is Status.PASS
    assert verdict.origin.startswith("first differs in module 'norm' (LayerNorm, zoo.py:")
    assert "encoded: Tensor = self.norm(" in verdict.origin


def test_sizes_that_the_export_saw_are_not_unseen() -> None:
    assert sweep_settings(QUICK, {"batch": 3}).seen_sizes == {"batch": frozenset({3})}


@pytest.mark.parametrize(("of_part", "expected"), [(None, 4 << 20), (1000, 1000), (5 << 20, 4 << 20)])
def test_a_part_may_allow_less_for_a_case(of_part: int | None, expected: int) -> None:
    assert sweep_settings(QUICK, None, of_part).max_case_bytes == expected


def test_given_cases_must_fit(tmp_path: Path) -> None:
    plan = plan_for("scores_and_choice", tmp_path / "m.port", cases={"function": "given_cases.py:samples"})
    [part] = find_model(plan.request).parts
    assert [(c.name, c.kind, dict(c.sizes)) for c in given_cases(part)] == [
        ("given 1", "typical", {"batch": 2})
    ]
    wrong = plan_for("scores_and_choice", tmp_path / "m.port", cases={"function": "given_cases.py:wrong"})
    [part] = find_model(wrong.request).parts
    with pytest.raises(InputError, match="input 'features' is float64"):
        given_cases(part)


def test_given_arrays_are_what_is_run(tmp_path: Path) -> None:
    plan = plan_for("scores_and_choice", tmp_path / "m.port", cases={"function": "given_cases.py:samples"})
    [part] = find_model(plan.request).parts
    [case] = given_cases(part)
    arrays = case.arrays(part.signature.inputs)
    assert np.array_equal(arrays["features"], np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 12))


def test_the_users_function_of_cases_runs_once(tmp_path: Path) -> None:
    plan = plan_for("scores_and_choice", tmp_path / "m.port", cases={"function": "given_cases.py:samples"})
    [part] = find_model(plan.request).parts
    calls = []

    def counted() -> list[dict[str, np.ndarray]]:
        calls.append(1)
        return [{"features": np.zeros((2, 12), np.float32)}]

    read = read_cases_once(replace(part, given=counted))
    assert len(given_cases(read)) == len(given_cases(read)) == 1
    assert calls == [1]
    bare = replace(part, given=None)
    assert read_cases_once(bare) is bare
