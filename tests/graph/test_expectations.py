"""What a graph must hold of the weights: clean exports account for all, damage of one element is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from anyport.graph.capture import capture
from anyport.graph.expectations import expected_weights, unused_weights
from anyport.graph.initializers import read_initializers
from anyport.recipe import Part
from anyport.tensors import Signature, tensor
from anyport.verify import LazyArray, Status, account_weights
from tests.graph.exports import PARTS, shared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyport.verify import Expected, WeightAccount

Found = dict[str, LazyArray]


@pytest.fixture(scope="module", params=PARTS, name="stored")
def _stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, tuple[Expected, ...], Found]:
    given = shared(request.param)
    graph = given.store(tmp_path_factory.mktemp(request.param))
    return request.param, expected_weights(given.captured.program), read_initializers(graph.path)


def how(account: WeightAccount) -> Mapping[str, str]:
    return {entry.name: entry.how for entry in account.entries}


def test_a_clean_export_accounts_for_every_weight(stored: tuple[str, tuple[Expected, ...], Found]) -> None:
    name, expected, found = stored
    account = account_weights(expected, found)
    assert account.status is Status.PASS
    assert "values only" not in account.counts, how(account)
    assert account.n_found == account.n_wanted
    assert account.surplus == (), name
    state = shared(name).part.module.state_dict()
    assert set(state) <= set(how(account))


def test_every_fold_is_understood() -> None:
    program = shared("folding").captured.program
    names = {item.name for item in expected_weights(program) if item.kind == "folded"}
    assert {"norm folded weight", "norm folded bias", "up_norm folded weight", "up_norm folded bias"} <= names
    assert {"lone folded scale", "lone folded shift"} <= names
    assert "scale -> exp" in names


def test_what_the_program_does_not_read_is_unused() -> None:
    given = shared("folding")
    kinds = {item.name: item.kind for item in expected_weights(given.captured.program)}
    assert kinds["never.weight"] == kinds["never.bias"] == "unused"
    assert kinds["norm.num_batches_tracked"] == "unused"
    assert kinds["conv.weight"] == "parameter"
    assert kinds["norm.running_mean"] == "buffer"


class Remembering(torch.nn.Module):
    """Begins with an empty memory, as the caches of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        memory: torch.Tensor = torch.cat([torch.tensor([]), self.linear(x)])
        return memory


def test_an_empty_constant_is_no_weight() -> None:
    signature = Signature((tensor("x", "float32[4, 3]"),), (tensor("y", "float32[4, 3]"),), {})
    captured = capture(Part("remembering", Remembering().eval(), signature))
    assert {item.name for item in expected_weights(captured.program)} == {"linear.weight", "linear.bias"}


def test_folds_are_what_pytorch_computes() -> None:
    """Conv and BatchNorm by hand, in float64."""
    given = shared("folding")
    state = {name: value.double().numpy() for name, value in given.part.module.state_dict().items()}
    folds = {item.name: item for item in expected_weights(given.captured.program) if item.kind == "folded"}
    scale = state["norm.weight"] / np.sqrt(state["norm.running_var"] + 1e-5)
    weight = state["conv.weight"] * scale[:, None, None, None]
    bias = (state["conv.bias"] - state["norm.running_mean"]) * scale + state["norm.bias"]
    assert np.allclose(folds["norm folded weight"].load(), weight, rtol=1e-6, atol=0)
    assert np.allclose(folds["norm folded bias"].load(), bias, rtol=1e-5, atol=1e-7)
    scale = state["up_norm.weight"] / np.sqrt(state["up_norm.running_var"] + 1e-5)
    weight = state["up.weight"] * scale[None, :, None, None]
    assert np.allclose(folds["up_norm folded weight"].load(), weight, rtol=1e-6, atol=0)
    assert np.allclose(folds["scale -> exp"].load(), np.exp(state["scale"]), rtol=1e-6, atol=0)


def damaged(found: Found, name: str, factor: float) -> Found:
    array = np.array(found[name].load())
    place = np.unravel_index(np.abs(array).argmax(), array.shape)
    array[place] *= factor
    return found | {name: LazyArray(array.shape, str(array.dtype), lambda: array)}


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.001])
def test_one_damaged_element_is_found(stored: tuple[str, tuple[Expected, ...], Found], factor: float) -> None:
    name, expected, found = stored
    floats = [key for key, array in found.items() if array.dtype == "float32" and np.prod(array.shape) > 8]
    assert floats
    for key in floats[:: max(1, len(floats) // 6)]:
        if not np.abs(found[key].load()).any():
            continue
        account = account_weights(expected, damaged(found, key, factor))
        assert account.status is Status.FAIL, (name, key, how(account))


def test_two_swapped_weights_are_found() -> None:
    given = shared("encoder")
    expected = expected_weights(given.captured.program)
    weights = given.converted.model.graph.initializers
    found: Found = {}
    for name, value in weights.items():
        if value.const_value is not None:
            array = np.array(value.const_value.numpy())
            found[name] = LazyArray(array.shape, str(array.dtype), lambda array=array: array)  # type: ignore[misc]
    assert account_weights(expected, found).status is Status.PASS
    pairs = [n for n in found if n.startswith("blocks.0") and n.replace("blocks.0", "blocks.1") in found]
    one, other = pairs[-1], pairs[-1].replace("blocks.0", "blocks.1")
    found[one], found[other] = found[other], found[one]
    account = account_weights(expected, found)
    assert account.status is Status.FAIL
    assert one in account.failures[0]


class _Idle(torch.nn.Module):
    """One layer's answer is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.idle(x)
        answer: torch.Tensor = self.used(x)
        return answer


def test_weights_that_no_output_depends_on_are_unused() -> None:
    torch.manual_seed(0)
    signature = Signature((tensor("x", "float32[3, 3]"),), (tensor("y", "float32[3, 3]"),), {})
    program = capture(Part("idle", _Idle().eval(), signature)).program
    assert unused_weights(program) == {"idle.weight", "idle.bias"}
