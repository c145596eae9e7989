"""LoRA adapters: every spelling gives the same weights, and what does not fit is named."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from anyport.errors import SourceError, UsageError
from anyport.recipe.adapters import Adapter, adapter_from, check_adapter, merge_adapter
from tests.recipe.loras import ALPHA, KEYS, RANK, drawn, linear_layers, tensors, write_lora
from tests.recipe.qwen_folders import SIZES, make_transformer

if TYPE_CHECKING:
    from pathlib import Path


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_out = nn.Linear(5, 4), nn.ModuleList([nn.Linear(4, 5)])
        self.norm = nn.LayerNorm(5)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList([Attention(), Attention()])
        self.proj_out = nn.Linear(5, 7)


@pytest.fixture(name="network")
def _network() -> nn.Module:
    torch.manual_seed(0)
    return Network()


def saved(path: Path, content: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Adapter:
    save_file(content, path, metadata)
    return Adapter(path)


@pytest.mark.parametrize("style", KEYS)
@pytest.mark.parametrize(("alpha", "scale"), [(ALPHA, 1.0), (None, 1.0), (ALPHA, -0.5)])
def test_a_merged_weight_is_what_the_formula_says(
    network: nn.Module, tmp_path: Path, style: str, alpha: float | None, scale: float
) -> None:
    before, weights = deepcopy(network).state_dict(), drawn(linear_layers(network))
    path = tmp_path / "style.safetensors"
    saved(path, tensors(weights, style, alpha=alpha))
    said = merge_adapter(network, Adapter(path, scale))
    factor = scale * (1.0 if alpha is None else alpha / RANK)
    changed = {f"{name}.weight": factor * (up @ down) for name, (down, up) in weights.items()}
    assert len(changed) == 5
    for name, weight in network.state_dict().items():
        expected = before[name] + changed.get(name, 0)
        torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-7)
        assert name not in changed or not torch.equal(weight, before[name])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert said == (
        f"the LoRA 'style.safetensors' (sha256 {digest}, scale {scale:g}) is merged into 5 weights"
    )


def test_two_bytes_are_multiplied_in_float32(network: nn.Module, tmp_path: Path) -> None:
    weights = {n: (a.bfloat16(), b.bfloat16()) for n, (a, b) in drawn(linear_layers(network)).items()}
    before = network.state_dict()["proj_out.weight"].clone()
    merge_adapter(network, saved(tmp_path / "half.safetensors", tensors(weights, "Lightning")))
    down, up = weights["proj_out"]
    expected = before.double() + ALPHA / RANK * (up.double() @ down.double())
    torch.testing.assert_close(
        network.state_dict()["proj_out.weight"].double(), expected, rtol=1e-6, atol=1e-7
    )


def test_peft_says_alpha_in_the_metadata(network: nn.Module, tmp_path: Path) -> None:
    weights = drawn(linear_layers(network, ["proj_out"]))
    before = network.state_dict()["proj_out.weight"].clone()
    words = {"transformer.r": RANK, "transformer.lora_alpha": 12, "transformer.use_dora": False}
    metadata = {"lora_adapter_metadata": json.dumps(words)}
    merge_adapter(network, saved(tmp_path / "a.safetensors", tensors(weights, "peft", alpha=None), metadata))
    down, up = weights["proj_out"]
    torch.testing.assert_close(network.state_dict()["proj_out.weight"], before + 12 / RANK * (up @ down))


@pytest.mark.parametrize("word", ["use_dora", "use_rslora", "alpha_pattern"])
def test_what_peft_does_otherwise_is_refused(network: nn.Module, tmp_path: Path, word: str) -> None:
    value: Any = {"proj_out": 2} if word == "alpha_pattern" else True
    metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{word}": value})}
    found = refused(network, saved(tmp_path / "a.safetensors", content(network), metadata))
    assert found == f"the LoRA 'a.safetensors' has {word} = {value}, which is not merged here"


def content(network: nn.Module, **more: Tensor | None) -> dict[str, Tensor]:
    """Return an adapter of one layer, with the tensors of ``more``, and without those that are ``None``."""
    found: dict[str, Any] = tensors(drawn(linear_layers(network, ["proj_out"])), "Lightning")
    found |= {name.replace("__", "."): tensor for name, tensor in more.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def refused(network: nn.Module, adapter: Adapter) -> str:
    before = deepcopy(network).state_dict()
    with pytest.raises(SourceError) as caught:
        merge_adapter(network, adapter)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    return caught.value.what


WRONG = {
    "of another model": (
        {"blocks__0__qkv__lora_down__weight": torch.ones(3, 5), "zoo__alpha": torch.ones(())},
        "has 'blocks.0.qkv.lora_down.weight' and 1 more, which fits no linear layer of this model",
    ),
    "a norm": (
        {"transformer_blocks__0__norm__lora_up__weight": torch.ones(5, 3)},
        "has 'transformer_blocks.0.norm.lora_up.weight', which fits no linear layer of this model",
    ),
    "DoRA": (
        {"proj_out__dora_scale": torch.ones(7)},
        "has 'proj_out.dora_scale', which fits no linear layer of this model",
    ),
    "a difference": (
        {"proj_out__diff_b": torch.ones(7)},
        "has 'proj_out.diff_b', which fits no linear layer of this model",
    ),
    "no down": (
        {"proj_out__lora_down__weight": None},
        "has no lora_down (A) for 'proj_out'",
    ),
    "no up": ({"proj_out__lora_up__weight": None}, "has no lora_up (B) for 'proj_out'"),
    "another width": (
        {"proj_out__lora_down__weight": torch.ones(3, 6)},
        "has up [7, 3] @ down [3, 6] for 'proj_out', whose weight is [7, 5]",
    ),
    "another rank": (
        {"proj_out__lora_up__weight": torch.ones(7, 2)},
        "has up [7, 2] @ down [3, 5] for 'proj_out', whose weight is [7, 5]",
    ),
    "a convolution": (
        {"proj_out__lora_down__weight": torch.ones(3, 5, 1, 1)},
        "has up [7, 3] @ down [3, 5, 1, 1] for 'proj_out', whose weight is [7, 5]",
    ),
    "not a number": (
        {"proj_out__lora_up__weight": torch.full((7, 3), torch.nan)},
        "holds numbers in 'proj_out.lora_up.weight' that are not finite floats",
    ),
    "quantized": (
        {"proj_out__lora_up__weight": torch.ones(7, 3, dtype=torch.int8)},
        "holds numbers in 'proj_out.lora_up.weight' that are not finite floats",
    ),
    "several alphas": ({"proj_out__alpha": torch.ones(2)}, "has 2 numbers as alpha of 'proj_out'"),
    "said twice": (
        {"diffusion_model__proj_out__lora_B__weight": torch.ones(7, 3)},
        "speaks twice of what 'proj_out.lora_up.weight' says",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named_and_nothing_changed(
    network: nn.Module, tmp_path: Path, name: str
) -> None:
    more, words = WRONG[name]
    assert refused(network, saved(tmp_path / "a.safetensors", content(network, **more))) == (
        f"the LoRA 'a.safetensors' {words}"
    )


def test_files_that_are_none(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert refused(network, Adapter(path)) == "there is no LoRA 'a.safetensors'"
    path.write_bytes(b"PK no such thing")
    assert refused(network, Adapter(path)).startswith("the LoRA 'a.safetensors' is no safetensors file: ")
    assert refused(network, saved(path, {})) == "the LoRA 'a.safetensors' is empty"


def test_a_file_is_looked_at_before_a_network_is_there(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    check_adapter(saved(path, content(network)))
    saved(path, {"proj_out.weight": torch.ones(7, 7), "proj_out.bias": torch.ones(7)})
    with pytest.raises(SourceError) as caught:
        check_adapter(Adapter(path))
    assert str(caught.value) == (
        "'a.safetensors' is no LoRA: none of its 2 tensors is called lora_down, lora_A or so\n"
        "  do:    give the LoRA's own file, not the weights of a model"
    )
    with pytest.raises(SourceError, match="^there is no LoRA 'b.safetensors'"):
        check_adapter(Adapter(tmp_path / "b.safetensors"))


def test_words(tmp_path: Path) -> None:
    assert adapter_from("a.safetensors", tmp_path) == Adapter(tmp_path / "a.safetensors", 1.0)
    assert adapter_from("b/a.safetensors:0.5", tmp_path) == Adapter(tmp_path / "b" / "a.safetensors", 0.5)
    assert adapter_from("a.safetensors:-1", tmp_path).scale == -1


@pytest.mark.parametrize("text", ["a.bin", "a.pt:1", "a.safetensors:", "a.safetensors:x", "a.safetensors:0"])
def test_other_words_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        adapter_from(f"folder/{text}", tmp_path)
    assert caught.value.what == f"the LoRA '{text}' is no FILE.safetensors or FILE.safetensors:SCALE"


@torch.no_grad()
def test_a_transformer_answers_as_with_the_adapter_beside_it(tmp_path: Path) -> None:
    """Each layer of the one compared with answers ``W x + alpha / rank * up (down x)``: nothing is merged."""
    merged, beside = make_transformer(SIZES["tiny"]), make_transformer(SIZES["tiny"])
    weights = write_lora(tmp_path / "a.safetensors", merged)
    merge_adapter(merged, Adapter(tmp_path / "a.safetensors", 0.7))
    generator = torch.Generator().manual_seed(2)
    words: dict[str, Any] = {
        "hidden_states": torch.randn(1, 24, 64, generator=generator),
        "encoder_hidden_states": torch.randn(1, 7, 64, generator=generator),
        "timestep": torch.tensor([0.9]),
        "img_shapes": [[(1, 4, 6)]],
        "return_dict": False,
    }
    plain = beside(**words)[0]
    for name, (down, up) in weights.items():
        beside.get_submodule(name).register_forward_hook(
            lambda _, given, answer, down=down, up=up: (
                answer + 0.7 * ALPHA / RANK * (given[0] @ down.T) @ up.T
            )
        )
    expected = beside(**words)[0]
    torch.testing.assert_close(merged(**words)[0], expected, rtol=1e-4, atol=2e-5)
    assert (expected - plain).abs().max() > 0.05
