"""What a part computes is counted without numbers, and agrees with what can be counted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from anyport.build.plan import BuildSettings
from anyport.build.workload import workload_of
from anyport.errors import SourceError
from anyport.recipe import Part, blip
from anyport.tensors import Signature, dim, tensor
from tests.recipe.blip_folders import CLASSES, write_folder

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = BuildSettings(max_cases=6)


class Twice(nn.Module):
    """float32[batch, 4] -> float32[batch, 8]; one of its weights is never read."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Linear(8, 8, bias=False)
        self.unread = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))  # type: ignore[no-any-return]  # a module's answer


def part(module: nn.Module) -> Part:
    signature = Signature(
        (tensor("x", "float32[batch, 4]"),),
        (tensor("y", "float32[batch, 8]"),),
        {"batch": dim("batch", "1..9")},
    )
    return Part("network", module.to("meta").eval(), signature)


def test_operations_and_weights_are_counted() -> None:
    load = workload_of(part(Twice()), SETTINGS)
    assert len(load.cases) == len(load.runs) == 6
    for case, run in zip(load.cases, load.runs, strict=True):
        batch = case.sizes["batch"]
        assert run.n_flops == 2 * batch * (4 * 8 + 8 * 8)
        assert (run.input_bytes, run.output_bytes) == (16 * batch, 32 * batch)
        assert run.moved_bytes == 3 * 32 * batch, "addmm, relu, mm; views cost nothing"
        assert run.peak_bytes == 32 * batch
    assert sorted(load.weights) == [(32, 1), (128, 2), (256, 2)]
    assert load.weight_bytes == 416


class Stack(nn.Module):
    """float32[batch, 4] -> float32[batch, 8]; three blocks are alike, and one is wider."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 8), nn.Linear(8, 8)])
        self.layers.append(nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def test_blocks_that_are_alike_are_run_once_and_counted_each(monkeypatch: pytest.MonkeyPatch) -> None:
    network = part(Stack())
    one_by_one = workload_of(network, SETTINGS)
    ran: list[nn.Module] = []
    forward = nn.Linear.forward

    def told(self: nn.Linear, x: Tensor) -> Tensor:
        ran.append(self)
        return forward(self, x)

    monkeypatch.setattr(nn.Linear, "forward", told)
    alike = workload_of(replace(network, blocks="layers"), SETTINGS)
    assert alike == one_by_one
    assert [run.n_calls for run in alike.runs] == [2 * 5 + 5] * 6, "t, addmm, relu"
    n_sizes = len({case.sizes["batch"] for case in alike.cases})
    assert len(ran) == 3 * n_sizes + 5, "three forms at each size, and all of them to find the weights"
    assert not any("forward" in vars(layer) for layer in network.module.modules())


def test_the_largest_case_alone_is_counted_if_that_is_enough() -> None:
    network = part(Stack())
    whole, largest = (workload_of(network, SETTINGS, largest_only=word) for word in (False, True))
    assert largest.cases == whole.cases
    most = max(whole.runs, key=lambda run: run.input_bytes)
    assert set(largest.runs) <= set(whole.runs)
    assert most in largest.runs
    assert largest.needed == whole.needed


def test_a_branch_by_a_value_is_passed() -> None:
    class Asks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.repeat(1, 2) if (x > 0).all() else torch.cat([x, x], 1)

    assert workload_of(part(Asks()), SETTINGS).weights == ()


def test_a_module_that_needs_its_numbers_is_refused() -> None:
    class Needs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.numpy())

    text = "^part 'network' cannot be outlined without its weights: "
    with pytest.raises(SourceError, match=text) as caught:
        workload_of(part(Needs()), SETTINGS)
    assert caught.value.do == (
        "anyport build … --dry-run shows what will be done; the cost is not known beforehand"
    )


@pytest.mark.parametrize("architecture", CLASSES)
def test_every_wholeof_blip_is_counted(architecture: str, tmp_path: Path) -> None:
    outline = blip.outline(write_folder(architecture, tmp_path / "tiny"))
    loaded = blip.load(tmp_path / "tiny")
    for whole, other in zip(outline.parts, loaded.parts, strict=True):
        assert whole.signature == other.signature
        load = workload_of(whole, SETTINGS)
        assert load.n_calls > 0
        tensors = (*other.module.parameters(), *other.module.buffers())
        assert 0 < load.weight_bytes <= sum(one.nbytes for one in tensors)
