"""Streamed weights: a module without numbers answers as one that has them, one weight at a time."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyport.cases import Case, Normal
from anyport.errors import SourceError
from anyport.recipe import Part
from anyport.source import TorchReference
from anyport.source.float64 import NoTwinError, run_in_float64
from anyport.source.merging import LazyWeight
from anyport.source.streaming import (
    StreamedSession,
    StreamedWeights,
    lifted,
    run_streamed,
    weights_inside,
)
from anyport.tensors import Signature, tensor

if TYPE_CHECKING:
    from collections.abc import Callable


class Net(nn.Module):
    """Weights that are called, and weights that are used as tensors; a softmax that forces float32."""

    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(8, 8)
        self.other = nn.Linear(8, 8)
        self.other.weight = self.line.weight
        self.mixed = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.scale = nn.Parameter(torch.randn(8))
        self.walk = nn.GRU(8, 8, batch_first=True)
        self.register_buffer("places", torch.arange(8.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return float32[batch, tokens, 8]."""
        x = x.to(self.line.weight.dtype).to(self.line.weight.device)
        x = torch.softmax(self.line(x), -1, dtype=torch.float32).type_as(x)
        x = x * self.scale + self.norm(x) + self.places
        x = x + self.mixed(x, x, x)[0]
        answer: Tensor = self.other(x) @ self.line.weight.T + self.walk(x)[0]
        return answer


def lazy(tensor: Tensor) -> LazyWeight:
    """Return a weight that is read from a tensor, as from a file."""
    code, bits = ("BF16", tensor.view(torch.uint16)) if tensor.dtype == torch.bfloat16 else ("F32", tensor)
    return LazyWeight(code, tuple(tensor.shape), lambda: bits.detach().numpy().copy())


def made() -> tuple[Net, Net, dict[str, LazyWeight]]:
    """Return a module, the same on the meta device, and its weights in bfloat16."""
    torch.manual_seed(0)
    net = Net().eval().to(torch.bfloat16)
    weights = {name: lazy(one.clone()) for name, one in net.state_dict().items()}
    with torch.device("meta"):
        empty = Net().eval()
    return net.float(), empty, weights


def inputs() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 5, 8)


def test_it_answers_as_the_module_that_has_weights() -> None:
    net, empty, weights = made()
    with torch.no_grad():
        expected = net(inputs())
    found = run_streamed(empty, weights, lambda: empty(inputs()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # attention takes another path
    assert all(one.is_meta for one in empty.parameters())


def test_it_answers_in_float64_as_the_twin_does() -> None:
    net, empty, weights = made()
    expected, _ = run_in_float64(_Tuple(net), [inputs()])
    found = run_streamed(empty, weights, lambda: empty(lifted(inputs())), double=True)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected[0], rtol=1e-12, atol=1e-12)


class _Tuple(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.net(x),)


def test_no_weight_is_held_after_its_operator() -> None:
    torch.manual_seed(0)
    with torch.device("meta"):
        net = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(6))).eval()
    alive: list[weakref.ref[np.ndarray]] = []
    counts: list[int] = []

    def reader(seed: int) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            array = np.random.default_rng(seed).normal(size=(64, 64)).astype(np.float32)
            alive.append(weakref.ref(array))
            counts.append(sum(one() is not None for one in alive))
            return array

        return read

    weights = {f"{i}.weight": LazyWeight("F32", (64, 64), reader(i)) for i in range(6)}
    run_streamed(net, weights, lambda: net(torch.ones(1, 64)))
    assert counts == [1] * 6


def test_a_weight_says_what_it_will_be() -> None:
    _, empty, weights = made()
    with StreamedWeights(empty, weights):
        assert (empty.scale.device, empty.scale.dtype) == (torch.device("cpu"), torch.float32)
        assert empty.scale.shape == (8,)
        assert empty.scale.data.sum().item() != 0


def test_weights_without_numbers_are_named() -> None:
    _, empty, weights = made()
    del weights["scale"]
    with pytest.raises(SourceError) as caught:
        run_streamed(empty, weights, lambda: None)
    assert str(caught.value) == "'scale' is neither in the checkpoint nor made by the module"


def test_what_has_no_float64_says_so() -> None:
    _, empty, weights = made()
    held = torch.zeros(8)
    with pytest.raises(NoTwinError, match=r"writes into a torch\.float32 tensor"):
        run_streamed(empty, weights, lambda: held.add_(1), double=True)


def test_names_of_a_module_inside_are_those_of_the_whole() -> None:
    _, empty, weights = made()
    whole = nn.ModuleDict({"net": empty})
    assert set(weights_inside(whole, empty, weights)) == {f"net.{name}" for name in weights}


def test_the_reference_gives_the_answers_and_floors_of_the_loaded_one() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).eval()
    weights = {name: lazy(one) for name, one in net.state_dict().items()}
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).eval()
    signature = Signature((tensor("x", "float32[3, 8]"),), (tensor("y", "float32[3, 4]"),), {})
    case = Case("one", "random", {}, {"x": Normal(1)}, {})
    expected = TorchReference(Part("net", net, signature)).answer(case)
    part = Part("net", empty, signature)
    found = TorchReference(part, StreamedSession(part, weights)).answer(case)
    np.testing.assert_array_equal(found.outputs["y"], expected.outputs["y"])
    assert found.floors["y"].max_abs == pytest.approx(expected.floors["y"].max_abs)
    assert found.floors["y"].how == "PyTorch float32 against float64, streamed"
