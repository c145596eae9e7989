"""The float64 twin: right to 1e-12, without a copy of the weights, and without a trace afterwards."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from anyport.source.adapter import flatten_output
from anyport.source.float64 import NoTwinError, run_in_float64

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
IDS = torch.arange(14).reshape(2, 7) % 11
MASK = torch.tensor([[1] * 7, [1] * 3 + [0] * 4])


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


class AsTuple(nn.Module):
    """Whatever a module answers, as a tuple of tensors."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(flatten_output(self.inner(*tensors)).values())


class Attention(nn.Module):
    """A softmax in forced float32, as in many language models; and weights that are used uncalled."""

    def __init__(self, *, forced: bool) -> None:
        super().__init__()
        self.query = nn.Linear(8, 8)
        self.register_buffer("scale", torch.rand(8))
        self.single = torch.float32 if forced else torch.float64

    def forward(self, x: Tensor) -> Tensor:
        q = nn.functional.linear(x, self.query.weight) * self.get_buffer("scale")
        scores = q.to(self.single) @ x.to(self.single).transpose(1, 2)
        return torch.softmax(scores, -1, dtype=self.single).to(x.dtype)


def bert() -> nn.Module:
    return hf.BertModel(hf.BertConfig(vocab_size=20, max_position_embeddings=16, **SMALL))  # type: ignore[arg-type]


def vit() -> nn.Module:
    return hf.ViTModel(hf.ViTConfig(image_size=16, patch_size=8, **SMALL))  # type: ignore[arg-type]


def resnet() -> nn.Module:
    return hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))


def llama() -> nn.Module:
    return hf.LlamaModel(hf.LlamaConfig(vocab_size=20, use_cache=False, **SMALL))  # type: ignore[arg-type]


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


# the last column: whether module.double() computes everything in float64
TWINS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], bool]] = {
    "BERT with a mask": (bert, (IDS, MASK), True),
    "ViT": (vit, (noise(2, 3, 16, 16),), True),
    "ResNet": (resnet, (noise(2, 3, 32, 32),), True),
    "Llama": (llama, (IDS,), False),
    "LSTM": (lambda: nn.LSTM(8, 16, batch_first=True), (noise(2, 5, 8),), True),
    "TransformerEncoder": (encoder, (noise(2, 5, 16),), True),
    "convolution with bias": (lambda: nn.Conv2d(3, 4, 3), (noise(2, 3, 6, 6),), True),
    "uncalled weights": (lambda: Attention(forced=False), (noise(2, 5, 8),), True),
    "forced float32": (lambda: Attention(forced=True), (noise(2, 5, 8),), False),
}


@pytest.fixture(scope="module", params=TWINS, name="twin")
def _twin(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[Tensor, ...], bool]:
    make, tensors, doubles = TWINS[request.param]
    torch.manual_seed(0)
    return AsTuple(make()).eval(), tensors, doubles


def doubled(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(t.double() if t.is_floating_point() else t for t in tensors)


def distance(left: Tensor, right: Tensor) -> float:
    return float((left.double() - right.double()).abs().max() / right.abs().max())


def test_the_twin_is_float64(twin: tuple[nn.Module, tuple[Tensor, ...], bool]) -> None:
    module, tensors, doubles = twin
    answers, how = run_in_float64(module, tensors)
    with torch.no_grad():
        single = module(*tensors)
        exact = copy.deepcopy(module).double()(*doubled(tensors))
    assert how.startswith("PyTorch float32 against float64")
    for answer, float32, float64 in zip(answers, single, exact, strict=True):
        assert answer.dtype == torch.float64
        assert distance(answer, float32) < 1e-5
        if doubles:
            assert distance(answer, float64) < 1e-12
    assert any(not torch.equal(a.float(), s) for a, s in zip(answers, single, strict=True))


def test_nothing_is_left_behind(twin: tuple[nn.Module, tuple[Tensor, ...], bool]) -> None:
    module, tensors, _ = twin
    places = {name: value.data_ptr() for name, value in module.state_dict().items()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    run_in_float64(module, tensors)
    after = module.state_dict()
    assert {name: value.data_ptr() for name, value in after.items()} == places
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(after[name].dtype == before[name].dtype for name in before)
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())


def test_forced_float32_is_lifted_and_said() -> None:
    torch.manual_seed(0)
    module, x = Attention(forced=True).eval(), noise(2, 5, 8)
    (answer,), how = run_in_float64(AsTuple(module), (x,))
    weight, scale, wide = module.query.weight.double(), module.get_buffer("scale").double(), x.double()
    exact = torch.softmax((wide @ weight.T * scale) @ wide.transpose(1, 2), -1).detach()
    assert distance(answer, exact) < 1e-14
    assert re.search(r", [1-9] casts to a smaller float lifted$", how)


class Breaks(nn.Module):
    """The second of three modules fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.error = error

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.first(x)
        if x.numel():
            raise self.error
        return (self.last(x),)


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (RuntimeError("no such kernel"), NoTwinError),
        (KeyError("word"), KeyError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_an_error_inside_leaves_the_weights_as_they_were(error: Exception, seen: type[Exception]) -> None:
    module = Breaks(error)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(seen):
        run_in_float64(module, (torch.ones(2, 4),))
    after = module.state_dict()
    assert all(torch.equal(after[n], before[n]) and after[n].dtype == torch.float32 for n in before)
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())


def test_tied_weights_stay_tied() -> None:
    left, right = nn.Linear(4, 4), nn.Linear(4, 4)
    right.weight = left.weight
    (answer,), _ = run_in_float64(AsTuple(nn.Sequential(left, right, left)), (torch.ones(2, 4),))
    assert right.weight is left.weight
    assert answer.dtype == torch.float64
    assert left.weight.dtype == torch.float32


class Writes(nn.Module):
    """It keeps a tensor that is neither a parameter nor a buffer, and writes to it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.zeros(3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self.table.copy_(x.sum(0))
        return (self.table + x,)


def test_a_module_that_writes_float32_has_no_twin() -> None:
    with pytest.raises(NoTwinError, match=re.escape("writes into a torch.float32 tensor")):
        run_in_float64(Writes(), (torch.ones(2, 3),))


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        steps: Any = self.steps
        steps.add_(1)
        return (x + steps,)


def test_a_changed_buffer_is_put_back() -> None:
    module = Counts()
    (answer,), _ = run_in_float64(module, (torch.ones(2, 3),))
    assert torch.equal(answer, torch.full((2, 3), 2.0, dtype=torch.float64))
    assert not module.get_buffer("steps").any()
