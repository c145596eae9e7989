from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from anyport.graph.capture import capture
from anyport.graph.convert import convert
from anyport.graph.expectations import expected_weights
from anyport.graph.initializers import read_initializers
from anyport.graph.storing import StoreOptions, store
from anyport.verify import LazyArray, Status, account_weights
from tests.source.parts import part_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class Recurrent(nn.Module):
    """A recurrent layer over 5 steps."""

    def __init__(self, layer: nn.GRU | nn.LSTM) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[n, 5, hidden * directions]."""
        answer: Tensor = self.layer(x)[0]
        return answer


KINDS = {
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
    "gru both ways, two layers, no bias": (nn.GRU, {"bidirectional": True, "num_layers": 2, "bias": False}),
    "lstm both ways, two layers": (nn.LSTM, {"bidirectional": True, "num_layers": 2}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_weight_of_a_recurrent_layer_is_found_and_damage_is_seen(name: str, tmp_path: Path) -> None:
    kind, options = KINDS[name]
    torch.manual_seed(0)
    layer = kind(3, 6, batch_first=True, **options)  # type: ignore[arg-type]
    width = 12 if options.get("bidirectional") else 6
    part = part_of(
        Recurrent(layer), {"x": "float32[n, 5, 3]"}, {"y": f"float32[n, 5, {width}]"}, {"n": "1..4"}
    )
    captured = capture(part)
    graph = store(convert(captured, part), tmp_path / "model.onnx", StoreOptions())
    expected, found = expected_weights(captured.program), read_initializers(graph.path)
    account = account_weights(expected, found)
    assert account.status is Status.PASS, account.failures
    assert account.n_found == account.n_wanted == len(list(layer.parameters()))
    for name_in_graph, array in found.items():
        if array.n_elements < width or array.dtype != "float32":
            continue
        values = np.array(array.load())
        values.reshape(-1)[np.abs(values).argmax()] = 0
        damaged = found | {name_in_graph: LazyArray(array.shape, array.dtype, lambda values=values: values)}
        assert account_weights(expected, damaged).status is Status.FAIL, name_in_graph
