from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from torch import nn

from anyport.build import VerifyRequest, build, describe, export_plain, verify_plain
from anyport.build.description import signature_of
from anyport.build.fixing import fix_axes, n_left_out
from anyport.bundle import open_bundle
from anyport.errors import InputError, UsageError
from anyport.recipe import Model, Part
from anyport.runtime import open_session
from anyport.verify import Status, verify_bundle
from tests.build.building import QUICK, TABLES, ZOO, plan_for, silent

if TYPE_CHECKING:
    from pathlib import Path

DENSE = TABLES["dense"]


def model_of(tables: dict[str, Any], **part: Any) -> Model:
    signature = signature_of(describe({"model": {"source": "m.py:load"}} | tables, "test"))
    assert signature is not None
    return Model("m", "m.py:load", (Part("network", nn.Identity(), signature, **part),))


def words(model: Model) -> tuple[list[str], list[str], dict[str, str]]:
    signature = model.parts[0].signature
    return (
        [str(spec) for spec in signature.inputs],
        [str(spec) for spec in signature.outputs],
        {name: str(dim) for name, dim in signature.dims.items()},
    )


@pytest.mark.parametrize(
    ("sizes", "inputs", "outputs", "dims"),
    [
        ({}, *words(model_of(DENSE))),
        (
            {"batch": 1},
            ["float32[1, 3, height, width]"],
            ["float32[1, 2, height//8, width//8]", "float32[1, 2, height, width]"],
            {"height": "16..96:8", "width": "16..96:8"},
        ),
        (
            {"batch": 1, "height": 24, "width": 64},
            ["float32[1, 3, 24, 64]"],
            ["float32[1, 2, 3, 8]", "float32[1, 2, 24, 64]"],
            {},
        ),
    ],
)
def test_names_become_numbers_in_every_tensor(
    sizes: dict[str, int], inputs: list[str], outputs: list[str], dims: dict[str, str]
) -> None:
    assert words(fix_axes(model_of(DENSE), sizes)) == (inputs, outputs, dims)


def test_an_axis_of_two_names_keeps_the_free_one() -> None:
    tables = {
        "inputs": {"x": "float32[batch, height, width] -1..1"},
        "outputs": {"y": "float32[batch, (height - 1) * width // 8, n_boxes]"},
        "dims": {"batch": "1..4", "height": "2..9", "width": "8..16:8"},
    }
    inputs, outputs, dims = words(fix_axes(model_of(tables), {"height": 5}))
    assert inputs == ["float32[batch, 5, width] -1..1"]
    assert outputs == ["float32[batch, (5-1)*width//8, n_boxes]"]
    assert dims == {"batch": "1..4", "width": "8..16:8"}
    both = fix_axes(model_of(tables), {"height": 5, "width": 16})
    assert words(both)[1] == ["float32[batch, 8, n_boxes]"]


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"hieght": 24}, "--fix hieght=24: there is no axis 'hieght' (did you mean 'height'?)"),
        ({"q": 1}, "--fix q=1: there is no axis 'q' (known: 'batch', 'height', 'width')"),
        ({"height": 30}, "--fix height=30: the axis takes 16..96:8 (did you mean 32?)"),
        ({"height": 1000}, "--fix height=1000: the axis takes 16..96:8 (did you mean 96?)"),
        ({"height": 0}, "--fix height=0: the axis takes 16..96:8 (did you mean 16?)"),
        ({"batch": 5}, "--fix batch=5: the axis takes 1..4 (did you mean 4?)"),
    ],
)
def test_what_cannot_be_fixed_is_refused(sizes: dict[str, int], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        fix_axes(model_of(DENSE), sizes)
    assert caught.value.what == text


def test_parts_without_the_axis_stay_as_they_are() -> None:
    [dense], [other] = model_of(DENSE).parts, model_of(TABLES["scores_and_choice"]).parts
    both = Model("m", "m.py:load", (dense, replace(other, name="head")))
    fixed = fix_axes(both, {"height": 24})
    assert fixed.parts[1].signature == other.signature
    assert "height" not in fixed.parts[0].signature.dims


def test_the_users_cases_of_other_sizes_are_left_out_and_counted() -> None:
    def given() -> list[dict[str, Any]]:
        arrays = [np.zeros((n, 12), np.float32) for n in (1, 2, 1, 32)]
        return [{"features": array} for array in arrays] + [{"features": np.zeros(3, np.float32)}, {}]

    model = model_of(TABLES["scores_and_choice"], given=given)
    fixed = fix_axes(model, {"batch": 1})
    kept = fixed.parts[0].given
    assert kept is not None
    # what is wrong with the last two is said when they are used
    assert [getattr(feeds.get("features"), "shape", None) for feeds in kept()] == [
        (1, 12),
        (1, 12),
        (3,),
        None,
    ]
    assert n_left_out(model, fixed) == (2, 6)
    assert n_left_out(model, fix_axes(model, {})) == (0, 6)


@pytest.mark.parametrize("opset", [17, 20])
def test_a_fixed_model_is_proven_like_any_other(opset: int, tmp_path: Path) -> None:
    made = {"opset": opset, "fix": {"batch": 2, "height": 24}}
    result = build(plan_for("dense", tmp_path / "m.port", build=made), silent)
    assert result.verdicts[0].status is Status.PASS
    [step] = result.manifest.variants["fp32"].steps
    assert step.settings["fix"] == {"batch": 2, "height": 24}
    part = result.manifest.parts["network"]
    assert part.inputs == {"pixel_values": "float32[2, 3, 24, width]"}
    assert part.dims == {"width": "16..96:8"}
    with open_bundle(result.path) as bundle:
        file = onnx.load(str(bundle.graph_file("network").path), load_external_data=False)
        [small, large] = [
            [axis.dim_param or axis.dim_value for axis in out.type.tensor_type.shape.dim]
            for out in file.graph.output
        ]
        assert (small, large) == ([2, 2, 3, "width//8"], [2, 2, 24, "width"])
        assert [v.status for v in verify_bundle(bundle, open_session)] == [Status.PASS]
        session = open_session(bundle.graph_file("network"))
        with pytest.raises(InputError, match="has size 1 where the model takes 2"):
            session.run({"pixel_values": np.zeros((1, 3, 24, 16), np.float32)})
        session.close()


def test_a_model_without_any_dynamic_axis(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    result = export_plain(
        plan_for("masked_encoder", path, build={"fix": {"batch": 1, "sequence": 7}}), silent
    )
    assert result.verdict.status is Status.PASS
    request = VerifyRequest(path, f"{ZOO}/zoo.py:masked_encoder", {}, {}, {}, QUICK)
    assert verify_plain(request).status is Status.PASS


def test_left_out_cases_are_said(tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []
    tables = {"cases": {"function": "given_cases.py:samples"}, "build": {"fix": {"batch": 3}}}
    build(
        plan_for("scores_and_choice", tmp_path / "m.port", **tables),
        lambda step, text: lines.append((step, text)),
    )
    assert lines[0] == ("warning", "1 of your 1 cases are of other sizes than batch=3: left out")
