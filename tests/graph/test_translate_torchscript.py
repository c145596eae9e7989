"""The TorchScript exporter, below opset 18: the same contract, and advice where it has no translation."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from anyport.errors import AxisError, ExportError
from anyport.graph.capture import capture
from anyport.graph.convert import convert
from anyport.graph.translate_torchscript import translate
from tests.graph.exports import ALPHABET, SMALL, bert_part, encoder_part
from tests.house.tree import PACKAGE, ROOT
from tests.source.parts import BATCH, X, Y, part_of

if TYPE_CHECKING:
    from anyport.recipe import Part


def refusal(part: Part, opset: int) -> ExportError:
    with pytest.raises(ExportError) as caught:
        convert(capture(part), part, opset)
    return caught.value


def test_attention_below_opset_14_says_how_it_goes() -> None:
    error = refusal(encoder_part(), 13)
    assert error.what == (
        "part 'network' has no translation to ONNX opset 13: it uses aten::scaled_dot_product_attention, "
        "which opset 14 can express"
    )
    assert re.match(r"exports\.py:\d+: attended = nn\.functional\.scaled_dot", error.where or "")
    assert error.do == (
        "--opset 14, or load the model with eager attention (transformers: attn_implementation='eager')"
    )
    assert "transformers/models/bert/modeling_bert.py:" in (refusal(bert_part(), 13).where or "")


def test_the_advice_helps() -> None:
    torch.manual_seed(0)
    config: Any = hf.BertConfig(
        vocab_size=50,
        max_position_embeddings=16,
        attn_implementation="eager",
        **SMALL,  # type: ignore[arg-type]
    )
    inputs = {"input_ids": "int64[batch, sequence] 0..49", "attention_mask": "int64[batch, sequence] 0..1"}
    outputs = {"last_hidden_state": "float32[batch, sequence, 32]"}
    part = part_of(hf.BertModel(config, add_pooling_layer=False), inputs, outputs, ALPHABET)
    assert convert(capture(part), part, 13).model.opset_imports[""] == 13


class GridSample(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        grid = torch.zeros(x.shape[0], 2, 2, 2)
        return nn.functional.grid_sample(x.reshape(-1, 1, 2, 4), grid, align_corners=False).flatten(1)


class Eigenvalues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x.unsqueeze(-1) * x.unsqueeze(-2))


@pytest.mark.parametrize(
    ("module", "outputs", "operator", "do"),
    [
        (
            GridSample(),
            {"y": "float32[batch, 4]"},
            "aten::grid_sampler, which opset 16 can express",
            "--opset 16",
        ),
        (
            Eigenvalues(),
            Y,
            "aten::linalg_eigvalsh",
            "--opset 18 or more takes the other exporter; or rewrite that line with operators that ONNX has",
        ),
    ],
)
def test_other_operators_are_named_with_their_line(
    module: nn.Module, outputs: dict[str, str], operator: str, do: str
) -> None:
    error = refusal(part_of(module, X, outputs), 15)
    assert error.what == f"part 'network' has no translation to ONNX opset 15: it uses {operator}"
    assert (error.where or "").startswith("test_translate_torchscript.py:")
    assert error.do == do


class Baked(nn.Module):
    """Takes another way when it is traced, as some libraries do."""

    def forward(self, x: Tensor) -> Tensor:
        n_rows = 3 if torch.jit.is_tracing() else x.shape[0]
        return x.reshape(n_rows, 2, 4) * 2


def test_a_size_that_the_trace_made_constant_is_an_axis_error() -> None:
    part = part_of(Baked(), X, {"y": "float32[batch, 2, 4]"})
    captured = capture(part)
    with pytest.raises(
        AxisError, match="axis 'batch' was asked for as dynamic, the graph has the constant 3"
    ) as caught:
        convert(captured, part, 17)
    assert caught.value.where == "axis 0 of tensor 'y', part 'network'"


def test_output_axes_are_those_of_the_capture() -> None:
    """The exporter's own notes call every axis of an upsampled picture by another axis's name."""
    part = part_of(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")),
        {"input": "float32[batch, 3, height, width]"},
        {"y": "float32[batch, 8, height, width]"},
        BATCH | {"height": "8..64:2", "width": "8..64:2"},
    )
    shape = translate(capture(part), part, 17, ()).graph.outputs[0].shape
    assert shape is not None
    assert [isinstance(size, int) for size in shape.dims] == [False, True, False, False]


_NOISY = """
from tests.graph.exports import encoder_part
from anyport.graph.capture import capture
from anyport.graph.convert import convert
from anyport.errors import ExportError
part = encoder_part()
for opset in (14, 13):
    try:
        convert(capture(part), part, opset)
    except ExportError:
        print("refused")
"""


def test_the_exporter_prints_nothing() -> None:
    """It writes graphs to the process's own output, past Python's; that would spoil ``--json``."""
    done = subprocess.run(
        [sys.executable, "-c", _NOISY],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": f"{PACKAGE.parent}:{ROOT}", "PATH": "/usr/bin:/bin"},
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")
