"""LoRA files for tests, in the ways in which trainers write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

RANK: Final = 3
ALPHA: Final = 6.0
KEYS: Final = {  # layer -> how the trainer calls the layer, down and up
    "peft": ("transformer.{}", "lora_A.weight", "lora_B.weight"),
    "peft of a model": ("base_model.model.{}", "lora_A.default.weight", "lora_B.default.weight"),
    "Lightning": ("{}", "lora_down.weight", "lora_up.weight"),
    "ComfyUI": ("diffusion_model.{}", "lora_A.weight", "lora_B.weight"),
    "kohya": ("lora_unet_{}", "lora_down.weight", "lora_up.weight"),
}


def drawn(layers: dict[str, nn.Linear]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return down and up of every layer."""
    generator = torch.Generator().manual_seed(5)
    return {
        name: (
            torch.randn(RANK, layer.in_features, generator=generator) * 0.1,
            torch.randn(layer.out_features, RANK, generator=generator) * 0.1,
        )
        for name, layer in layers.items()
    }


def linear_layers(network: nn.Module, ends: Iterable[str] = ("",)) -> dict[str, nn.Linear]:
    """Return the layers whose names end so."""
    wanted = tuple(ends)
    return {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear) and n.endswith(wanted)}


def tensors(
    weights: dict[str, tuple[Tensor, Tensor]], style: str, *, alpha: float | None = ALPHA
) -> dict[str, Tensor]:
    """Return what such a file holds."""
    layer, down_name, up_name = KEYS[style]
    found = {}
    for name, (down, up) in weights.items():
        place = layer.format(name.replace(".", "_") if style == "kohya" else name)
        found |= {f"{place}.{down_name}": down, f"{place}.{up_name}": up}
        if alpha is not None:
            found[f"{place}.alpha"] = torch.tensor(alpha)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def write_lora(path: Path, network: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Write one for the attention of every block, as Lightning does, and return its weights."""
    weights = drawn(linear_layers(network, ("to_q", "to_k", "add_v_proj", "to_out.0", "net.2")))
    save_file(tensors(weights, "Lightning"), path)
    return weights
