"""A captured part to ONNX: the opset that was asked for, the weights by name, whichever exporter writes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from anyport.errors import ExportError, UsageError
from anyport.graph import convert as room
from anyport.graph.convert import MAX_OPSET, MIN_OPSET, convert, exporter_of
from anyport.graph.storing import StoreOptions, store
from tests.graph.exports import PARTS, Export, export, holds, run_onnx, shared, weights_of
from tests.source.parts import X, Y, part_of

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from anyport.graph.convert import Converted

INSIDE = StoreOptions("inside")
EXPORTERS = (17, 20)  # an opset of each exporter


@pytest.fixture(scope="module", name="linear")
def _linear() -> Export:
    torch.manual_seed(0)
    return export(part_of(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), {"input": X["x"]}, Y))


# ── opset ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("opset", range(MIN_OPSET, MAX_OPSET + 1))
def test_the_opset_asked_for_is_written(linear: Export, opset: int, tmp_path: Path) -> None:
    graph = store(convert(linear.captured, linear.part, opset), tmp_path / "m.onnx", INSIDE)
    file = onnx.load(str(graph.path))
    assert {entry.domain: entry.version for entry in file.opset_import}[""] == opset == graph.opset
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
    expected = linear.part.module(torch.from_numpy(x)).detach().numpy()
    assert np.allclose(run_onnx(graph.path, {"input": x})["y"], expected, atol=1e-6)


@pytest.mark.parametrize("opset", [0, 12, MIN_OPSET - 1, MAX_OPSET + 1])
def test_other_opsets_are_refused(linear: Export, opset: int) -> None:
    with pytest.raises(UsageError, match=re.escape(f"opset {opset} cannot be written: 13..23 can")):
        convert(linear.captured, linear.part, opset)


def test_an_opset_that_torch_changed_is_an_error(linear: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for 12, 15 and 17, torch wrote 18 with a line in its log."""
    true = room._translate
    monkeypatch.setattr(room, "_translate", lambda captured, part, _opset, ops: true(captured, part, 18, ops))
    with pytest.raises(ExportError, match="opset 21 was asked for and the exporter wrote 18") as caught:
        convert(linear.captured, linear.part, 21)
    assert caught.value.do == "--opset 18"


@pytest.mark.parametrize("opset", EXPORTERS)
@pytest.mark.parametrize("name", PARTS)
def test_weights_have_the_names_of_the_module(name: str, opset: int) -> None:
    given = shared(name, opset)
    module = given.part.module
    weights = weights_of(module)
    assert given.converted.weight_names
    assert given.converted.weight_names <= set(weights)
    for weight in given.converted.weight_names:
        value = given.converted.model.graph.initializers[weight].const_value
        assert value is not None
        assert value.size == weights[weight].size
        if name in {"bert", "encoder", "vit"}:  # the others fold a norm into the convolution before it
            assert holds(value.numpy(), weights[weight])


def converted_names(given: Converted) -> list[str | None]:
    return [value.name for node in given.model.graph for value in node.outputs]


@pytest.mark.parametrize("opset", EXPORTERS)
@pytest.mark.parametrize("name", ["encoder", "resnet"])
def test_names_inside_are_the_same_every_time(name: str, opset: int) -> None:
    given = shared(name, opset)
    assert converted_names(convert(given.captured, given.part, opset)) == converted_names(given.converted)


@pytest.mark.parametrize(
    ("opset", "name"), [(13, "torchscript"), (17, "torchscript"), (18, "dynamo"), (23, "dynamo")]
)
def test_the_exporter_follows_from_the_opset(opset: int, name: str) -> None:
    assert exporter_of(opset) == name


@pytest.mark.parametrize("opset", EXPORTERS)
def test_an_operator_that_is_not_onnx_s_own_is_refused(
    linear: Export, opset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = room._translate

    def foreign(*given: object) -> ir.Model:
        model = true(*given)  # type: ignore[arg-type]
        next(node for node in model.graph if node.op_type == "Relu").domain = "acme"
        return model

    monkeypatch.setattr(room, "_translate", foreign)
    text = "part 'network' would hold the operator acme::Relu, which is not ONNX's own"
    with pytest.raises(ExportError, match=re.escape(text)):
        convert(linear.captured, linear.part, opset)
