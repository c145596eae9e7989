"""Adapters merged weight by weight: the numbers of merging into a whole network, and the same refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from anyport.errors import SourceError
from anyport.recipe.adapters import Adapter, merge_adapter
from anyport.source import check_against, open_checkpoint, wanted_weights
from anyport.source.merging import LazyWeights, as_torch, lazy_weights
from tests.recipe.loras import drawn, linear_layers, tensors

if TYPE_CHECKING:
    from pathlib import Path


class Network(nn.Module):
    """Two layers share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5)])
        self.out = nn.Linear(5, 7)
        self.out_too = nn.Linear(5, 7)
        self.out_too.weight = self.out.weight


def opened(folder: Path, adapters: tuple[Adapter, ...]) -> tuple[Network, LazyWeights]:
    """Return a network of bfloat16 numbers, and its checkpoint's lazy weights; the module is on meta."""
    torch.manual_seed(0)
    network = Network().to(torch.bfloat16)
    state = {n: t for n, t in network.state_dict().items() if n != "out_too.weight"}
    save_file(state, folder / "model.safetensors")
    with torch.device("meta"):
        empty = Network()
    checkpoint = open_checkpoint(folder)
    found = check_against(checkpoint, wanted_weights(empty))
    return network.float(), lazy_weights(checkpoint, found, empty, adapters)


def write_adapter(path: Path, seed: int, scale: float) -> Adapter:
    torch.manual_seed(seed)
    save_file(tensors(drawn(linear_layers(Network())), "Lightning"), path)
    return Adapter(path, scale)


def test_each_weight_is_what_merging_into_the_network_gives(tmp_path: Path) -> None:
    adapters = (
        write_adapter(tmp_path / "one.safetensors", 1, 0.8),
        write_adapter(tmp_path / "two.safetensors", 2, -1.0),
    )
    network, lazy = opened(tmp_path, adapters)
    words = tuple(merge_adapter(network, adapter) for adapter in adapters)
    assert lazy.words == words
    for name, weight in network.state_dict().items():
        one = lazy.weights[name]
        read = as_torch(one.read(), one.dtype)
        assert (one.stored is None) == name.endswith("weight")
        assert one.dtype == ("F32" if one.stored is None else "BF16")
        assert one.shape == tuple(weight.shape)
        assert torch.equal(read.float(), weight), name


def test_without_adapters_each_weight_is_what_is_stored(tmp_path: Path) -> None:
    network, lazy = opened(tmp_path, ())
    assert lazy.words == ()
    for name, weight in network.state_dict().items():
        read = as_torch(lazy.weights[name].read(), lazy.weights[name].dtype)
        assert read.dtype == torch.bfloat16
        assert torch.equal(read.float(), weight)


def test_an_adapter_of_another_model_is_refused_as_ever(tmp_path: Path) -> None:
    save_file({"other.lora_A.weight": torch.zeros(2, 5), "other.lora_B.weight": torch.zeros(5, 2)},
              tmp_path / "x.safetensors")  # fmt: skip
    with pytest.raises(SourceError) as caught:
        opened(tmp_path, (Adapter(tmp_path / "x.safetensors"),))
    assert caught.value.what == (
        "the LoRA 'x.safetensors' has 'other.lora_A.weight' and 1 more, which fits no linear layer of this "
        "model"
    )
