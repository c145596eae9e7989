"""Whatever may change gives PyTorch's answers under the old graph; whatever may not is pinned by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from anyport.errors import CheckpointError
from anyport.graph.capture import example_sizes, example_tensors
from anyport.graph.checkpoints import open_checkpoint
from anyport.graph.derivations import Copied, Folded, read_derivations
from anyport.graph.deriving import find_derivations, note_derivations, same_bits
from anyport.graph.initializers import read_initializers
from anyport.graph.weightswap import swap_weights
from anyport.source import TorchSession
from tests.graph.exports import PARTS, export, run_onnx, shake_norms, shared, write_all
from tests.graph.reweights import changed, save
from tests.source.parts import part_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from anyport.graph.derivations import Derivations
    from tests.graph.exports import Export

ROOM = 2e-5  # of answers around 1: float32 in another order; the old weights are off by 0.05 and more


def difference(given: Export, module: nn.Module, graph: Path) -> float:
    """Return how far a graph is from PyTorch with these weights."""
    part = replace(given.part, module=module)
    tensors = example_tensors(part, example_sizes(tuple(part.signature.dims.values())))
    feeds = {spec.name: x.numpy() for spec, x in zip(part.signature.inputs, tensors, strict=True)}
    wanted, found = TorchSession(part).run(feeds), run_onnx(graph, feeds)
    return max(float(np.abs(wanted[n] - found[n]).max() / np.abs(wanted[n]).max()) for n in wanted)


def derived(given: Export, folder: Path) -> tuple[Derivations, Path]:
    (folder / "old").mkdir()
    graph = given.store(folder / "old").path
    return find_derivations(given.captured.program, graph), graph


def reweighted(given: Export, folder: Path) -> tuple[float, float]:
    """Return how far the new graph, and the old one, is from PyTorch with the new weights."""
    rules, graph = derived(given, folder)
    module = changed(given.part.module, rules.pinned, rules)
    checkpoint = open_checkpoint(save(module, folder / "new.safetensors"), rules)
    (folder / "new").mkdir()
    swap_weights(graph, folder / "new" / "model.onnx", rules, checkpoint.read, {})
    return difference(given, module, folder / "new" / "model.onnx"), difference(given, module, graph)


@pytest.mark.parametrize("opset", [14, 20])
@pytest.mark.parametrize("name", PARTS)
def test_new_weights_under_the_old_graph_are_the_new_model(name: str, opset: int, tmp_path: Path) -> None:
    after, before = reweighted(shared(name, opset), tmp_path)
    assert after < ROOM
    assert before > 100 * ROOM


@pytest.mark.parametrize("name", PARTS)
def test_what_is_pinned_is_refused_by_name_when_it_changes(name: str, tmp_path: Path) -> None:
    given = shared(name)
    rules, _ = derived(given, tmp_path)
    for number, weight in enumerate(list(rules.pinned)[:4]):
        keep = [other for other in rules.state if other != weight]
        path = save(changed(given.part.module, keep, rules), tmp_path / f"{number}.safetensors")
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(path, rules)
        text = f"'{path.name}' does not fit: '{weight}' has other values than when the graph was made"
        assert caught.value.what == f"{text}, and may not: {rules.pinned[weight].why}"
        assert caught.value.do == "build it again from the new weights: anyport build"


def test_folds_ties_and_unread_weights_are_told_apart(tmp_path: Path) -> None:
    rules, _ = derived(shared("folding"), tmp_path)
    assert rules.tied == {"right.weight": "left.weight"}
    assert {"never.weight", "never.bias", "norm.num_batches_tracked"} <= set(rules.unread)
    assert list(rules.pinned) == ["scale"]
    assert rules.pinned["scale"].why.endswith("was computed from it")
    conv, up = rules.rules["conv.weight"], rules.rules["up.weight"]
    assert isinstance(conv, Folded)
    assert isinstance(up, Folded)
    assert (conv.norm.mean, conv.axis, up.norm.mean, up.axis) == (
        "norm.running_mean",
        0,
        "up_norm.running_mean",
        1,
    )
    assert Copied("left.weight", transposed=True) in rules.rules.values()
    assert rules.rules["lone.bias"] == Copied("lone.bias")


def test_a_trained_transformer_has_nothing_pinned(tmp_path: Path) -> None:
    module = changed(shared("bert").part.module)
    given = export(replace(shared("bert").part, module=module))
    rules, _ = derived(given, tmp_path)
    assert (dict(rules.pinned), rules.unexplained) == ({}, [])
    assert rules.state.keys() == module.state_dict().keys()


class Zeros(nn.Module):
    """Equal tensors everywhere: what is whose cannot be seen in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.last = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        nn.init.zeros_(self.first.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(self.second(torch.relu(self.norm(self.first(x)))))
        return answer


@pytest.mark.parametrize("opset", [14, 20])
def test_equal_weights_are_never_guessed_apart(opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    part = part_of(
        Zeros(), {"x": "float32[batch, 2, 5, 5]"}, {"y": "float32[batch, 4, 5, 5]"}, {"batch": "1..4"}
    )
    after, before = reweighted(export(part, opset), tmp_path)
    assert after < ROOM
    # the newer exporter leaves biases of 0 out: then nothing may change at all
    assert (before > ROOM) == (opset == 14)


def test_a_layer_that_is_not_folded_is_copied(tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)  # read twice: no exporter folds it
            answer: Tensor = self.norm(y) + y
            return answer

    sizes = ({"x": "float32[batch, 2, 5, 5]"}, {"y": "float32[batch, 4, 5, 5]"}, {"batch": "1..4"})
    given = export(part_of(shake_norms(Twice()), *sizes))
    rules, _ = derived(given, tmp_path)
    assert {type(rule) for rule in rules.rules.values()} == {Copied}
    assert not rules.pinned


def test_an_unexplained_constant_is_named(tmp_path: Path) -> None:
    class Ramp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.layer(x) * torch.linspace(0, 1, 6)
            return answer

    torch.manual_seed(0)
    given = export(part_of(Ramp(), {"x": "float32[batch, 6]"}, {"y": "float32[batch, 6]"}, {"batch": "1..4"}))
    rules, graph = derived(given, tmp_path)
    held = read_initializers(graph)
    assert [held[name].shape for name in rules.unexplained] == [(6,)]


def test_the_rules_are_kept_in_the_module_map(tmp_path: Path) -> None:
    given = shared("encoder")
    write_all(given, tmp_path)
    before = (tmp_path / "modules.json").read_bytes()
    assert read_derivations(before) is None
    note_derivations(tmp_path / "modules.json", given.captured.program, tmp_path / "model.onnx")
    after = (tmp_path / "modules.json").read_bytes()
    assert read_derivations(after) == find_derivations(given.captured.program, tmp_path / "model.onnx")
    note_derivations(tmp_path / "modules.json", given.captured.program, tmp_path / "model.onnx")
    assert (tmp_path / "modules.json").read_bytes() == after


def test_bits_are_compared_and_not_numbers() -> None:
    nan = np.array([np.nan, 0.0], np.float32)
    assert same_bits(nan, nan.reshape(1, 2))
    assert not same_bits(np.array([0.0], np.float32), np.array([-0.0], np.float32))
    assert not same_bits(np.zeros(2, np.float32), np.zeros(2, np.float64))


class Decided(nn.Module):
    """A weight that the graph holds, and that something else was computed from."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.g = nn.Linear(6, 6), nn.Parameter(torch.linspace(-1.1, 1.4, 6))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.l(x) * self.g + self.decided(x)
        return answer

    def decided(self, x: Tensor) -> Tensor:
        return torch.where(self.g > 0, x, 3 * x)


class Compared(Decided):
    def decided(self, x: Tensor) -> Tensor:
        return torch.where(self.g + torch.ones(6) > 1, x, 3 * x)


class Chosen(Decided):
    def decided(self, x: Tensor) -> Tensor:
        return torch.index_select(x, 1, self.g.argmax(0, keepdim=True))


class Summed(Decided):
    def decided(self, x: Tensor) -> Tensor:
        return self.g.mul(4).to(torch.int64).to(torch.float32).sum() + x


@pytest.mark.parametrize("opset", [14, 20])
@pytest.mark.parametrize("kind", [Decided, Compared, Chosen, Summed])
def test_a_weight_that_decides_a_constant_is_pinned(kind: type[Decided], opset: int, tmp_path: Path) -> None:
    sizes = ({"x": "float32[batch, 6]"}, {"y": "float32[batch, 6]"}, {"batch": "1..4"})
    rules, _ = derived(export(part_of(kind(), *sizes), opset), tmp_path)
    assert rules.rules["g"] == Copied("g")
    assert "g" in rules.pinned
    assert "l.weight" not in rules.pinned
